"""Rollout dashboard: evidence and proofs, each beside the boundary at which it takes effect."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import (
    GREEN,
    NATS,
    RED,
    SIGNAL_COLORS,
    YELLOW,
    About,
    Column,
    Look,
    Query,
)
from penumbra.monitoring.dashboards.panels import chart, rows
from penumbra.monitoring.dashboards.promql import largest, smallest
from penumbra.monitoring.dashboards.rollout_scope import IN, PAIR, YES_NO
from penumbra.monitoring.telemetry import control
from penumbra.monitoring.telemetry.metric import Metric

WITH_AGGREGATE = 'slice=~"$slice|[*]"'
"""The chosen slices and always the aggregate."""


def evidence() -> frame.Row:
    """The row of evidence against the candidate."""
    by = f"{PAIR}, signal"
    log_evidence = largest(by, IN.pick(control.GUARDRAIL_EVIDENCE))
    boundary = largest(by, IN.pick(control.GUARDRAIL_BOUNDARY))
    return frame.Row(
        "Evidence against the candidate",
        [
            chart(
                About(
                    "Evidence against its boundary",
                    "Natural logarithm of each guardrail's evidence. It acts the moment a line"
                    " reaches the dashed one of its name.",
                    "rolled-back",
                ),
                [
                    Query(log_evidence, "{{signal}}"),
                    Query(boundary, "{{signal}}: boundary"),
                ],
                NATS,
                Look(minimum=None, decimals=1, dashed="/boundary$/", colors=SIGNAL_COLORS),
            ),
            rows(
                About(
                    "Guardrails now",
                    "The numbers that act: evidence and boundary of every guardrail, and how far"
                    " the one is on its way to the other.",
                    "quality-regression",
                ),
                ("candidate", "signal"),
                [
                    Column(
                        query=_without_model(log_evidence), name="evidence", unit=NATS, decimals=2
                    ),
                    Column(query=_without_model(boundary), name="boundary", unit=NATS, decimals=2),
                    Column(
                        query=_without_model(f"{log_evidence} / ({boundary} > 0)"),
                        name="reached",
                        unit="percentunit",
                        decimals=0,
                        steps=((0.5, YELLOW), (1, RED)),
                    ),
                    Column(
                        query=_without_model(largest(by, IN.pick(control.GUARDRAIL_TRIPPED))),
                        name="has acted",
                        words=YES_NO,
                    ),
                ],
                width=12,
            ),
            *(_per_slice(signal) for signal in ("displacement", "harm")),
        ],
    )


def proof() -> frame.Row:
    """The row of proofs and slices."""
    quality = ('signal=~"displacement|harm"', WITH_AGGREGATE)
    return frame.Row(
        "Proof that the candidate is within tolerance",
        [
            chart(
                About(
                    "Proof against its boundary",
                    "Natural logarithm of the weaker of a slice's two proofs, displacement and"
                    " harm. A slice with enough pairs is proven once it has reached the dashed"
                    " boundary.",
                ),
                [
                    Query(
                        smallest(f"{PAIR}, slice", IN.pick(control.PROOF, *quality)),
                        "{{candidate}}: {{slice}}",
                    ),
                    Query(largest(PAIR, IN.pick(control.PROOF_BOUNDARY)), "boundary"),
                ],
                NATS,
                Look(minimum=None, decimals=1, dashed="/boundary$/", colors={"/boundary$/": GREEN}),
            ),
            chart(
                About("Pairs", "Pairs that the current run has bet on, by slice."),
                [
                    Query(
                        largest(f"{PAIR}, slice", IN.pick(control.RUN_PAIRS)),
                        "{{candidate}}: {{slice}}",
                    )
                ],
                "short",
                Look(has_steps=True, decimals=0),
            ),
            _slices(),
        ],
    )


def _slices() -> frame.Panel:
    by = "candidate, slice"

    def worst(metric: Metric, signal: str) -> str:
        return largest(by, IN.pick(metric, f'signal="{signal}"', 'slice=~"$slice"'))

    proof_of_both = IN.pick(control.PROOF, 'signal=~"displacement|harm"', 'slice=~"$slice"')
    return rows(
        About(
            "Slices now",
            "What is known of each slice: evidence of displacement and harm, the weaker of both"
            " proofs against them, and the pairs. A quarantined slice stays on the baseline.",
            "quality-regression",
        ),
        ("candidate", "slice", "state"),
        [
            Column(query=largest(f"{by}, state", f"{IN.pick(control.SLICE_STATE)} == 1"), name=""),
            Column(query=largest(by, IN.pick(control.RUN_PAIRS)), name="pairs", decimals=0),
            Column(
                query=worst(control.EVIDENCE, "displacement"),
                name="displacement",
                unit=NATS,
                decimals=2,
            ),
            Column(query=worst(control.EVIDENCE, "harm"), name="harm", unit=NATS, decimals=2),
            Column(query=smallest(by, proof_of_both), name="proof", unit=NATS, decimals=2),
        ],
        height=9,
    )


def _per_slice(signal: str) -> frame.Panel:
    matchers = (f'signal="{signal}"', WITH_AGGREGATE)
    return chart(
        About(
            f"Evidence per slice: {signal}",
            "Natural logarithm of each slice's evidence (*: all slices together). The guardrail"
            " acts on their weighted average, so one line may pass the dashed boundary before it"
            " does.",
            "quality-regression",
        ),
        [
            Query(
                largest(f"{PAIR}, slice", IN.pick(control.EVIDENCE, *matchers)),
                "{{candidate}}: {{slice}}",
            ),
            Query(
                largest(PAIR, IN.pick(control.GUARDRAIL_BOUNDARY, f'signal="{signal}"')), "boundary"
            ),
        ],
        NATS,
        Look(minimum=None, decimals=1, dashed="/boundary$/", colors={"/boundary$/": RED}),
    )


def _without_model(expr: str) -> str:
    return largest("candidate, signal", expr)
