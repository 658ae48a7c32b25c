"""Traffic dashboard: rate, errors and duration of every variant, failover, shadow's cost."""

from collections.abc import Collection

from penumbra.monitoring.answers import FAILED as FAILED_ANSWERS
from penumbra.monitoring.answers import JUDGED, REFUSED, AnswerCode
from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import TOKENS, About, Look, Query
from penumbra.monitoring.dashboards.panels import chart
from penumbra.monitoring.dashboards.promql import per_second, quantile, share, total
from penumbra.monitoring.dashboards.traffic_scope import IN, QUANTILES, VARIABLES
from penumbra.monitoring.dashboards.traffic_shadow import shadow
from penumbra.monitoring.telemetry import gateway
from penumbra.monitoring.vocabulary import FAILURES, Outcome

CANDIDATES = 'role="candidate"'
FAILED = f'outcome=~"{"|".join(sorted(FAILURES))}"'
JUDGED_ATTEMPTS = f'outcome=~"{"|".join(sorted(FAILURES | {Outcome.OK}))}"'
"""Deeds of others or of the request are neither failures nor attempts that could have been one."""


def _requests() -> frame.Row:
    return frame.Row(
        "Requests",
        [
            chart(
                About(
                    "Requests by variant", "Requests for each second by the build that answered."
                ),
                [
                    Query(
                        per_second("model, variant, role", IN.pick(gateway.REQUESTS)),
                        "{{model}} / {{variant}} ({{role}})",
                    )
                ],
                "reqps",
                width=8,
            ),
            chart(
                About("Requests by slice", "Requests for each second by part of the traffic."),
                [Query(per_second("slice", IN.pick(gateway.REQUESTS)), "{{slice}}")],
                "reqps",
                Look(is_stacked=True),
                width=8,
            ),
            chart(
                About(
                    "Why a variant was chosen",
                    "Decisions of the flag for each second by variant and reason. GUARD and"
                    " LEASE_EXPIRED mean that a candidate was out of service.",
                ),
                [
                    Query(
                        per_second("variant, reason", IN.pick(gateway.DECISIONS)),
                        "{{variant}}: {{reason}}",
                    )
                ],
                "reqps",
                width=8,
            ),
            chart(
                About(
                    "Failed attempts by variant",
                    "Share of the attempts at a variant that failed; the client may still have been"
                    " answered, by another one.",
                    "failure-regression",
                ),
                [
                    Query(
                        share(
                            "variant",
                            IN.pick(gateway.ATTEMPTS, FAILED),
                            IN.pick(gateway.ATTEMPTS, JUDGED_ATTEMPTS),
                        ),
                        "{{variant}}",
                    )
                ],
                "percentunit",
                width=8,
            ),
            chart(
                About(
                    "Failed attempts of candidates, by slice",
                    "The same for candidates on each slice; empty while none has live traffic.",
                    "failure-regression",
                ),
                [
                    Query(
                        share(
                            "variant, slice",
                            IN.pick(gateway.ATTEMPTS, CANDIDATES, FAILED),
                            IN.pick(gateway.ATTEMPTS, CANDIDATES, JUDGED_ATTEMPTS),
                        ),
                        "{{variant}}: {{slice}}",
                    )
                ],
                "percentunit",
                width=8,
            ),
            chart(
                About(
                    "Attempts by outcome",
                    "Attempts at variants for each second, by how they ended. Shared, unsupported,"
                    " overtime, gateway_limit and client_error are held against no variant.",
                    "gateway-burn-rate",
                ),
                [
                    Query(
                        per_second("variant, outcome", IN.pick(gateway.ATTEMPTS)),
                        "{{variant}}: {{outcome}}",
                    )
                ],
                "reqps",
                width=8,
            ),
        ],
    )


def _codes(codes: Collection[AnswerCode]) -> str:
    return f'code=~"{"|".join(sorted(codes))}"'


def _clients() -> frame.Row:
    answered = IN.pick(
        gateway.ANSWERS, _codes(set(AnswerCode) - {AnswerCode.BROKEN_OFF, AnswerCode.UNANSWERED})
    )
    return frame.Row(
        "What clients got",
        [
            chart(
                About(
                    "Answers that failed for clients",
                    "Share of each model's answers that were errors, broke off, or were none,"
                    " whichever build caused it.",
                    "gateway-burn-rate",
                ),
                [
                    Query(
                        share(
                            "model",
                            IN.pick(gateway.ANSWERS, _codes(FAILED_ANSWERS)),
                            IN.pick(gateway.ANSWERS, _codes(JUDGED)),
                        ),
                        "{{model}}",
                    )
                ],
                "percentunit",
                width=8,
            ),
            chart(
                About(
                    "Refusals that clients got",
                    "Share of each variant's answers that refused the request (3xx, 401, 403, 404,"
                    " 429) or called it invalid (other 4xx).",
                    "engine-refusals",
                ),
                [
                    Query(
                        share("variant", IN.pick(gateway.ANSWERS, _codes(codes)), answered),
                        f"{{{{variant}}}}: {word}",
                    )
                    for word, codes in (
                        ("refused", REFUSED),
                        ("invalid", {AnswerCode.CLIENT_ERROR}),
                    )
                ],
                "percentunit",
                width=8,
            ),
            chart(
                About(
                    "Answers by code",
                    "Answers for each second, as clients got them: by status, broken off (counted"
                    " before by its status), or unanswered, an error of the gateway's own.",
                    "gateway-burn-rate",
                ),
                [
                    Query(
                        per_second("variant, code", IN.pick(gateway.ANSWERS)),
                        "{{variant}}: {{code}}",
                    )
                ],
                "reqps",
                width=8,
            ),
        ],
    )


def _latency() -> frame.Row:
    measured = (
        (
            "Time to first byte",
            gateway.TIME_TO_FIRST_BYTE,
            "From the request read to the first byte of its answer's body.",
        ),
        (
            "Time per output token",
            gateway.TIME_PER_OUTPUT_TOKEN,
            "Mean time between two pieces of a stream.",
        ),
        ("Duration", gateway.DURATION, "From the request read to the last byte of its answer."),
    )
    by_variant = [
        chart(
            About(
                f"{title}, {name}",
                f"{help_} The {name} of each variant: compare candidate and baseline.",
                "latency-regression",
            ),
            [Query(quantile(IN, metric, at, "variant"), "{{variant}}")],
            "s",
            width=8,
        )
        for title, metric, help_ in measured
        for at, name in QUANTILES
    ]
    by_slice = chart(
        About(
            "Time to first byte by slice, p90",
            "The p90 of each variant on each slice; long prompts take longer.",
            "latency-regression",
        ),
        [
            Query(
                quantile(IN, gateway.TIME_TO_FIRST_BYTE, 0.9, "variant, slice"),
                "{{variant}}: {{slice}}",
            )
        ],
        "s",
    )
    tokens = chart(
        About(
            "Output", "Pieces of streams that clients got for each second, a token each as a rule."
        ),
        [Query(per_second("variant", IN.pick(gateway.STREAM_PIECES)), "{{variant}}")],
        TOKENS,
    )
    return frame.Row("Latency", [*by_variant, by_slice, tokens])


def _gateway() -> frame.Row:
    return frame.Row(
        "Gateway",
        [
            chart(
                About(
                    "Failovers",
                    "Requests for each second that another attempt answered or continued, by what"
                    " happened first.",
                    "failure-regression",
                ),
                [
                    Query(
                        per_second("from_variant, outcome", IN.pick(gateway.FAILOVERS)),
                        "{{from_variant}}: {{outcome}}",
                    )
                ],
                "reqps",
                width=8,
            ),
            chart(
                About(
                    "Errors of the gateway itself",
                    "Requests for each second that it answered with an error of its own, by code:"
                    " limits, bad requests, no upstream.",
                    "gateway-burn-rate",
                ),
                [Query(per_second("code", IN.pick(gateway.ERRORS)), "{{code}}")],
                "reqps",
                width=8,
            ),
            chart(
                About(
                    "Clients that went away",
                    "Disconnects for each second before the answer was complete.",
                ),
                [
                    Query(
                        f"sum(rate({IN.pick(gateway.DISCONNECTS)}[$__rate_interval]))",
                        "disconnects",
                    )
                ],
                "reqps",
                width=8,
            ),
            chart(
                About(
                    "In flight", "Requests with an upstream attempt under way, over all gateways."
                ),
                [Query(f"sum({IN.pick(gateway.IN_FLIGHT)})", "requests")],
                "short",
                width=8,
            ),
            chart(
                About(
                    "Upstream connections",
                    "Open connections to each variant: those that carry a request and those that"
                    " wait for one.",
                ),
                [
                    Query(
                        total("variant, state", IN.pick(gateway.UPSTREAM_CONNECTIONS)),
                        "{{variant}}: {{state}}",
                    )
                ],
                "short",
                Look(decimals=0),
                width=16,
            ),
        ],
    )


BOARD = frame.Board(
    "traffic",
    "Traffic and latency",
    "Rate, errors and duration of every variant on every slice; failover and limits; what shadow"
    " compares and what it costs.",
    VARIABLES,
    [_clients(), _requests(), _latency(), _gateway(), shadow()],
)
