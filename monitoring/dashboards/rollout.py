"""Rollout dashboard: running rollouts, evidence against boundaries, the last rollback."""

from penumbra.monitoring.dashboards import frame
from penumbra.monitoring.dashboards.options import (
    BLUE,
    GRAY,
    GREEN,
    MUST_BE_ZERO,
    ORANGE,
    PURPLE,
    RED,
    About,
    Column,
    Look,
    Query,
)
from penumbra.monitoring.dashboards.panels import chart, number, rows
from penumbra.monitoring.dashboards.promql import largest, smallest, total
from penumbra.monitoring.dashboards.rollout_control import control_plane
from penumbra.monitoring.dashboards.rollout_evidence import evidence, proof
from penumbra.monitoring.dashboards.rollout_history import rollbacks
from penumbra.monitoring.dashboards.rollout_scope import IN, PAIR, VARIABLES, YES_NO
from penumbra.monitoring.telemetry import control, gateway
from penumbra.monitoring.telemetry.metric import Metric

SOUND = {"0": ("broken", RED), "1": ("ok", GREEN)}
PHASES = {"off": GRAY, "shadow": PURPLE, "live": BLUE, "promoted": GREEN, "rolled_back": RED}


def _now() -> frame.Row:
    stands = f"{_state(control.PHASE, 'phase')} * on ({PAIR}) group_left (verdict) "
    return frame.Row(
        "What is running",
        [
            rows(
                About(
                    "Rollouts",
                    "Each rollout's phase, its share of live traffic and what the evidence says."
                    " Frozen: nothing is promoted because the instrument is broken."
                    " Stale: the traffic has left what a proof was made on.",
                    "rolled-back",
                ),
                ("model", "candidate", "phase", "verdict"),
                [
                    Column(query=stands + _state(control.VERDICT, "verdict"), name=""),
                    Column(
                        query=largest(PAIR, IN.pick(control.SHARE)),
                        name="live share",
                        unit="percentunit",
                    ),
                    Column(query=largest(PAIR, IN.pick(control.HELD)), name="held", words=YES_NO),
                    Column(
                        query=largest(PAIR, IN.pick(control.FROZEN)), name="frozen", words=YES_NO
                    ),
                    Column(
                        query=largest(PAIR, IN.pick(control.PROOF_STALE)),
                        name="stale",
                        words=YES_NO,
                    ),
                    Column(
                        query=smallest(PAIR, IN.pick(control.INSTRUMENT_OK)),
                        name="instrument",
                        words=SOUND,
                    ),
                ],
                width=16,
                height=4,
            ),
            number(
                About(
                    "Rollback leaks",
                    "Attempts at a candidate that began although it was out of service, in this"
                    " time range. Must be 0.",
                    "post-rollback-leak",
                ),
                [
                    Query(
                        f"sum(max_over_time({IN.pick(gateway.POST_ROLLBACK_STARTS)}[$__range]))"
                        f" or count({gateway.SNAPSHOT_EPOCH.name}) * 0",
                        "leaks",
                    )
                ],
                "short",
                MUST_BE_ZERO,
            ),
            number(
                About(
                    "Last rollback",
                    "Time since the candidate was rolled back last; no data if it never was.",
                    "rolled-back",
                ),
                [
                    Query(
                        f"time() - {largest(PAIR, IN.pick(control.LAST_ROLLBACK))}",
                        "{{candidate}}: ago",
                    )
                ],
                "s",
            ),
            chart(
                About(
                    "Phase",
                    "The phase of each rollout as a coloured band over time; marks are stage"
                    " changes and rollbacks.",
                ),
                [Query(_state(control.PHASE, "phase"), "{{candidate}}: {{phase}}")],
                "short",
                Look(
                    has_steps=True,
                    is_stacked=True,
                    decimals=0,
                    colors={f"/: {phase}$/": color for phase, color in PHASES.items()},
                ),
                width=8,
            ),
            chart(
                About(
                    "Shares of the traffic",
                    "What the flag gives each variant by default, blocks and the kill switch"
                    " applied; dashed: the share that the rollout's stage stands for.",
                ),
                [
                    Query(largest("model, variant", IN.pick(control.FLAG_SHARE)), "{{variant}}"),
                    Query(largest(PAIR, IN.pick(control.SHARE)), "stage of {{candidate}}"),
                ],
                "percentunit",
                Look(maximum=1, has_steps=True, dashed="/^stage of/"),
                width=8,
            ),
            chart(
                About(
                    "Slices by state",
                    "How many slices are proven within tolerance, undecided, or quarantined (they"
                    " stay on the baseline).",
                ),
                [
                    Query(
                        total(
                            "candidate, state",
                            largest("model, candidate, slice, state", IN.pick(control.SLICE_STATE)),
                        ),
                        "{{candidate}}: {{state}}",
                    )
                ],
                "short",
                Look(
                    has_steps=True,
                    is_stacked=True,
                    decimals=0,
                    colors={
                        "/: proven$/": GREEN,
                        "/: undecided$/": GRAY,
                        "/: quarantined$/": ORANGE,
                    },
                ),
                width=8,
            ),
        ],
    )


def _state(metric: Metric, label: str, by: str = PAIR) -> str:
    """The series of a state metric whose state holds now."""
    return largest(f"{by}, {label}", f"{IN.pick(metric)} == 1")


BOARD = frame.Board(
    "rollout",
    "Rollout",
    "What is running, at which stage, how near the evidence is to its boundary, and why the last"
    " rollback happened.",
    VARIABLES,
    [_now(), evidence(), proof(), rollbacks(), control_plane()],
)
