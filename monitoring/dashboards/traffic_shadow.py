"""Traffic dashboard: requests that shadow mirrors, sheds and compares, and their cost."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import ORANGE, About, Look, Query
from penumbra.monitoring.dashboards.panels import chart, number
from penumbra.monitoring.dashboards.promql import mean, per_second, quantile
from penumbra.monitoring.dashboards.traffic_scope import IN, QUANTILES
from penumbra.monitoring.telemetry import comparator, gateway
from penumbra.monitoring.telemetry.metric import Metric


def shadow() -> frame.Row:
    """The row of shadow traffic, the last one."""
    return frame.Row(
        "Shadow and its cost",
        [
            chart(
                About(
                    "Mirrored",
                    "Answered requests for each second that gateways handed to the comparator,"
                    " what it received, and pairs that it compared.",
                    "shadow-starved",
                ),
                [
                    Query(
                        per_second("candidate", IN.pick(gateway.MIRRORED)),
                        "{{candidate}}: mirrored",
                    ),
                    Query(
                        f"sum(rate({IN.pick(comparator.RECEIVED)}[$__rate_interval]))", "received"
                    ),
                    Query(
                        per_second("candidate, arm", IN.pick(comparator.PAIRS)),
                        "{{candidate}}: pairs with {{arm}}",
                    ),
                ],
                "reqps",
                width=8,
            ),
            chart(
                About(
                    "Shed by gateways",
                    "Requests chosen for mirroring that were not handed over, by reason. Clients"
                    " notice nothing; the evidence grows more slowly.",
                    "shadow-starved",
                ),
                [
                    Query(
                        per_second("candidate, reason", IN.pick(gateway.MIRROR_SHEDS)),
                        "{{candidate}}: {{reason}}",
                    )
                ],
                "reqps",
                width=8,
            ),
            chart(
                About(
                    "Shed by the comparator",
                    "Mirrored requests that were not compared, by reason: busy and budget protect"
                    " the engines, repeated ones would count twice.",
                    "shadow-starved",
                ),
                [Query(per_second("reason", IN.pick(comparator.SHEDS)), "{{reason}}")],
                "reqps",
                width=8,
            ),
            chart(
                About(
                    "Lag",
                    "From the end of the client's answer to its comparison done: how old the newest"
                    " evidence is.",
                    "shadow-starved",
                ),
                [
                    Query(quantile(IN, comparator.LAG, at, "model"), f"{{{{model}}}}: {name}")
                    for at, name in QUANTILES
                ],
                "s",
                width=8,
            ),
            chart(
                About(
                    "Engine time spent",
                    "Engine seconds that comparing takes in each second: 0.1 is a tenth of one"
                    " engine.",
                ),
                [
                    Query(
                        per_second("candidate", IN.pick(comparator.ENGINE_SECONDS, part="sum")),
                        "{{candidate}}",
                    )
                ],
                "percentunit",
                width=8,
            ),
            chart(
                About(
                    "Engine time for a pair",
                    "Mean and p90 of the engine seconds of one pair in the window.",
                ),
                [
                    Query(
                        mean(
                            "candidate",
                            IN.pick(comparator.ENGINE_SECONDS, part="sum"),
                            IN.pick(comparator.ENGINE_SECONDS, part="count"),
                        ),
                        "{{candidate}}: mean",
                    ),
                    Query(
                        quantile(IN, comparator.ENGINE_SECONDS, 0.9, "candidate"),
                        "{{candidate}}: p90",
                    ),
                ],
                "s",
                width=8,
            ),
            chart(
                About(
                    "Queue",
                    "Mirrored requests that wait in comparators, and comparisons under way.",
                ),
                [
                    Query(f"sum({IN.pick(comparator.QUEUE_ITEMS)})", "waiting"),
                    Query(f"sum({IN.pick(comparator.IN_FLIGHT)})", "under way"),
                ],
                "short",
                width=8,
            ),
            chart(
                About(
                    "Buffers",
                    "Bytes of mirrored requests that wait, in gateways and in comparators.",
                ),
                [
                    Query(f"sum({IN.pick(gateway.MIRROR_BUFFER)})", "gateways"),
                    Query(f"sum({IN.pick(comparator.QUEUE_BYTES)})", "comparators"),
                ],
                "bytes",
                width=8,
            ),
            chart(
                About(
                    "Budget",
                    "Engine seconds that comparators may spend now; below 0 they pay off a debt and"
                    " shed.",
                ),
                [Query(f"sum({IN.pick(comparator.BUDGET)})", "budget")],
                "s",
                Look(minimum=None, limit=((0, ORANGE),)),
                width=8,
            ),
            number(
                About(
                    "Lost and broken",
                    "In this time range: requests lost with a comparator, frames that were none,"
                    " background work that failed.",
                ),
                [
                    Query(_reached(gateway.MIRROR_LOST), "lost"),
                    Query(_reached(comparator.MALFORMED), "malformed"),
                    Query(
                        f"{_reached(comparator.FAULTS)} or count({comparator.RECEIVED.name}) * 0",
                        "faults",
                    ),
                ],
                "short",
                ((1, ORANGE),),
                width=24,
            ),
        ],
    )


def _reached(metric: Metric) -> str:
    return f"sum(max_over_time({IN.pick(metric)}[$__range]))"
