"""Rollout dashboard: the control process and the processes connected to it."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import (
    MUST_BE_ZERO,
    ORANGE,
    RED,
    About,
    Column,
    Look,
    Query,
)
from penumbra.monitoring.dashboards.panels import chart, number, rows
from penumbra.monitoring.dashboards.promql import largest, smallest
from penumbra.monitoring.dashboards.rollout_scope import IN, PAIR
from penumbra.monitoring.telemetry import comparator, control, gateway
from penumbra.monitoring.telemetry.metric import Metric


def control_plane() -> frame.Row:
    """The row of processes and links."""
    up = "1 while it is up, by the worst process of a kind."
    return frame.Row(
        "Control plane",
        [
            chart(
                About(
                    "Lease left and guard's age",
                    "Candidates lose their live traffic when a lease ends. The guard's oldest sign"
                    " of life must stay well below the dashed lease.",
                    "guard-stale",
                ),
                [
                    Query(smallest("model", IN.pick(gateway.LEASE)), "{{model}}: lease left"),
                    Query(largest("model", IN.pick(control.GUARD_AGE)), "{{model}}: guard's age"),
                    Query(f"max({IN.pick(control.GUARD_LEASE)})", "lease"),
                ],
                "s",
                Look(dashed="/^lease$/", colors={"/^lease$/": RED}),
            ),
            chart(
                About(
                    "Epochs",
                    "The newest epoch of the store and what each gateway has put into force. A"
                    " gateway that lags serves by an older routing table.",
                ),
                [
                    Query(largest("gateway", IN.pick(control.GATEWAY_EPOCH)), "{{gateway}}"),
                    Query(f"max({IN.pick(control.EPOCH)})", "store"),
                    Query(f"min({IN.pick(gateway.SNAPSHOT_EPOCH)})", "oldest in force"),
                ],
                "short",
                Look(minimum=None, has_steps=True, decimals=0, dashed="/^(store|oldest)/"),
            ),
            chart(
                About(
                    "Connected processes",
                    "What is connected to the control process, and gateways without the newest"
                    " epoch: these should be none but for moments.",
                    "no-data",
                ),
                [
                    Query(f"max({IN.pick(control.GATEWAYS)})", "gateways"),
                    Query(f"max({IN.pick(control.COMPARATORS)})", "comparators"),
                    Query(f"max({IN.pick(control.OUTDATED_GATEWAYS)})", "outdated gateways"),
                ],
                "short",
                Look(has_steps=True, decimals=0, colors={"/^outdated/": RED}),
                width=8,
            ),
            chart(
                About(
                    "Links",
                    f"Gateway to control, comparator to control, gateway to comparator: {up}",
                ),
                [
                    Query(f"min({IN.pick(gateway.CONTROL_CONNECTED)})", "gateway to control"),
                    Query(f"min({IN.pick(comparator.CONTROL_CONNECTED)})", "comparator to control"),
                    Query(f"min({IN.pick(gateway.COMPARATOR_CONNECTED)})", "gateway to comparator"),
                    Query(
                        smallest(PAIR, IN.pick(comparator.HEALTHY)), "{{candidate}}: engine healthy"
                    ),
                ],
                "short",
                Look(maximum=1, has_steps=True, decimals=0),
                width=8,
            ),
            chart(
                About(
                    "Propagation of changes",
                    "From the durable commit of a change to the last gateway's acknowledgement;"
                    " empty while nothing changes.",
                ),
                [Query(_propagation(at), name) for at, name in ((0.5, "median"), (0.99, "99 %"))],
                "s",
                width=8,
            ),
            number(
                About(
                    "Blocked by hand",
                    "Models whose kill switch is on, and slices that stay on the baseline.",
                ),
                [
                    Query(f"sum({largest('model', IN.pick(control.KILLED))})", "kill switches"),
                    Query(
                        f"sum({largest('model, slice', IN.pick(control.QUARANTINED))})"
                        f" or max({IN.pick(control.EPOCH)}) * 0",
                        "quarantined slices",
                    ),
                ],
                "short",
                ((1, ORANGE),),
                width=8,
            ).height(6),
            number(
                About(
                    "Lost",
                    "Must be 0, in this time range: changes that the store did not take, changes"
                    " that a gateway acknowledged too late, observations that were dropped,"
                    " reports that cannot be counted, models with an event that cannot be read.",
                ),
                [
                    Query(_lost(control.STORE_FAILURES), "refused by the store"),
                    Query(_lost(control.INCOMPLETE), "late changes"),
                    Query(_lost(gateway.OBSERVATIONS_DROPPED), "dropped by gateways"),
                    Query(_lost(comparator.OBSERVATIONS_DROPPED), "dropped by comparators"),
                    Query(_lost(control.REPORTS_REFUSED), "refused reports"),
                    Query(_lost(control.SET_ASIDE), "models set aside"),
                ],
                "short",
                MUST_BE_ZERO,
                width=16,
            ).height(6),
            rows(
                About("Variants", "Every configured build and its fingerprint."),
                ("model", "variant", "role", "fingerprint"),
                [
                    Column(
                        query=largest(
                            "model, variant, role, fingerprint", IN.pick(control.VARIANT_INFO)
                        ),
                        name="",
                    )
                ],
                width=14,
                height=6,
            ),
            rows(
                About("Versions", "How many processes run which version of Penumbra and Python."),
                ("process", "version", "python"),
                [
                    Column(
                        query=" or ".join(
                            f"label_replace(count by (version, python) ({IN.pick(metric)}),"
                            f' "process", "{process}", "", "")'
                            for process, metric in (
                                ("gateway", gateway.BUILD),
                                ("comparator", comparator.BUILD),
                                ("control", control.BUILD),
                            )
                        ),
                        name="processes",
                        decimals=0,
                    )
                ],
                width=10,
                height=6,
            ),
        ],
    )


def _propagation(at: float) -> str:
    buckets = f"sum by (le) (rate({IN.pick(control.PROPAGATION, part='bucket')}[$__rate_interval]))"
    count = f"sum(rate({IN.pick(control.PROPAGATION, part='count')}[$__rate_interval]))"
    return f"histogram_quantile({at:g}, {buckets}) and on () ({count} > 0)"


def _lost(metric: Metric) -> str:
    return f"sum(max_over_time({IN.pick(metric)}[$__range]))"
