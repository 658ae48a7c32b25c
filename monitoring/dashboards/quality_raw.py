"""Quality dashboard: raw measurements of the comparator, before any statistics."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import BLUE, GRAY, GREEN, RED, About, Look, Query
from penumbra.monitoring.dashboards.panels import chart, number
from penumbra.monitoring.dashboards.promql import largest, mean, per_second, share, smallest
from penumbra.monitoring.dashboards.quality_scope import IN
from penumbra.monitoring.telemetry import comparator, control


def _raw_displacement() -> list[frame.Panel]:
    def sums(arm: str, part: str) -> str:
        return IN.pick(comparator.DISPLACEMENT, f'arm="{arm}"', part=part)

    return [
        chart(
            About(
                "Displacement as measured, without the guard",
                "Mean of the pairs in the window, straight from the comparator: the candidate"
                " beside the baseline against itself (A/A), which should lie near 0.",
                "instrument-broken",
            ),
            [
                Query(
                    mean("arm", sums("candidate", "sum"), sums("candidate", "count")), "candidate"
                ),
                Query(mean("arm", sums("baseline", "sum"), sums("baseline", "count")), "A/A"),
            ],
            "percentunit",
            Look(colors={"/^candidate$/": BLUE, "/^A.A$/": GREEN}),
        ),
        chart(
            About(
                "Displacement as measured, by slice",
                "Mean of the candidate's pairs in the window on each slice.",
                "quality-regression",
            ),
            [
                Query(
                    mean("slice", sums("candidate", "sum"), sums("candidate", "count")), "{{slice}}"
                )
            ],
            "percentunit",
        ),
        chart(
            About(
                "Spread of displacement",
                "Quantiles of the candidate's pairs in the window: a small mean with a large 99 %"
                " is harm to few answers.",
            ),
            [Query(_spread(at), f"{at:.0%}".replace("%", " %")) for at in (0.5, 0.9, 0.99)],
            "percentunit",
            width=8,
        ),
    ]


def _spread(at: float) -> str:
    buckets = IN.pick(comparator.DISPLACEMENT, 'arm="candidate"', part="bucket")
    count = IN.pick(comparator.DISPLACEMENT, 'arm="candidate"', part="count")
    return (
        f"histogram_quantile({at:g}, {per_second('le, candidate', buckets)})"
        f" and on (candidate) ({per_second('candidate', count)} > 0)"
    )


def raw() -> frame.Row:
    """The row of raw measurements."""
    candidate = 'arm="candidate"'
    return frame.Row(
        "What the comparator saw",
        [
            *_raw_displacement(),
            chart(
                About(
                    "Harm: worse and better",
                    "Pairs for each second in which the candidate's answer failed checks that the"
                    " baseline's passed (worse), or the other way round (better).",
                    "quality-regression",
                ),
                [
                    Query(
                        per_second("direction", IN.pick(comparator.HARM, candidate)),
                        "{{direction}}",
                    )
                ],
                "cps",
                Look(colors={"/^worse$/": RED, "/^better$/": GREEN, "/^same$/": GRAY}),
                width=8,
            ),
            chart(
                About(
                    "Failed checks",
                    "Answers for each second that failed a check, by whose they were: what the"
                    " baseline fails too is not the candidate's fault.",
                ),
                [
                    Query(
                        per_second("check, side", IN.pick(comparator.FAILED_CHECKS)),
                        "{{check}} ({{side}})",
                    )
                ],
                "cps",
                width=8,
            ),
            chart(
                About("Pairs", "Compared requests for each second, by what was compared."),
                [Query(per_second("arm", IN.pick(comparator.PAIRS)), "{{arm}}")],
                "cps",
                width=8,
            ),
            chart(
                About(
                    "Pairs without an answer",
                    "Share of the candidate's pairs for which it gave no usable score or answer.",
                    "quality-regression",
                ),
                [
                    Query(
                        share(
                            "slice",
                            IN.pick(comparator.MISSING, candidate),
                            IN.pick(comparator.PAIRS, candidate),
                        ),
                        "{{slice}}",
                    )
                ],
                "percentunit",
                width=8,
            ),
            chart(
                About("Feedback", "Users' judgements for each second, by variant."),
                [
                    Query(
                        per_second("variant, judgement", IN.pick(control.FEEDBACK)),
                        "{{variant}}: {{judgement}}",
                    )
                ],
                "cps",
                Look(colors={"/: content$/": GREEN, "/: not_content$/": RED}),
                width=8,
            ),
            number(
                About(
                    "Self-test",
                    "Whether the baseline was equal to itself in the last self-test; if not,"
                    " nothing that is measured of quality counts.",
                    "self-test-failed",
                ),
                [Query(smallest("model", IN.pick(comparator.SELF_TEST_OK)), "{{model}}")],
                "short",
                ((0, RED), (1, GREEN)),
                {"0": ("failed", RED), "1": ("passed", GREEN)},
                width=12,
            ),
            number(
                About(
                    "Largest difference in the self-test",
                    "Between two scores of one token by the same build.",
                    "self-test-failed",
                ),
                [Query(largest("model", IN.pick(comparator.SELF_TEST_GAP)), "{{model}}")],
                "suffix: nats",
                width=12,
            ),
        ],
    )
