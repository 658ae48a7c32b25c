"""Transitions of a rollout's record, whether the guard or an operator decides them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from penumbra.deployments.rollouts.findings import Findings, Flow, Tripped
from penumbra.deployments.rollouts.record import Phase, RolloutRecord, Verdict, stage_name
from penumbra.deployments.rollouts.spec import RolloutSpec


class StepKind(StrEnum):
    """Kind of one step of a decision."""

    ROLLBACK = "rollback"
    CONFIRM = "confirm"
    VOID = "void"
    QUARANTINE = "quarantine"
    SUSPECT = "suspect"
    HOLD = "hold"
    ALERT = "alert"
    RESET = "reset"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    CALIBRATE = "calibrate"
    IDENTIFY = "identify"
    COUNT = "count"
    STALE = "stale"
    RENEW = "renew"
    RELEASE = "release"
    PROVE_LIVE = "prove_live"
    PASS = "pass"  # noqa: S105 - no password
    INCONCLUSIVE = "inconclusive"
    ADVANCE = "advance"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True)
class DecisionStep:
    """One step of a decision, and its cause."""

    did: StepKind
    cause: str
    tripped: Tripped | None = None


Decision = tuple[RolloutRecord, tuple[DecisionStep, ...]]


def summary(steps: Sequence[DecisionStep]) -> str:
    """The causes of all steps, in one line."""
    return "; ".join(step.cause for step in steps)


def next_stage_index(spec: RolloutSpec, record: RolloutRecord) -> int | None:
    """Index of the stage after an advance.

    From the last stage it is the last one again, which means promotion. None: there is none.
    """
    if record.phase is Phase.PROMOTED or len(spec.stages) == 1:
        return None
    return min(record.stage_index + 1, len(spec.stages) - 1)


def advance(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings, now: datetime
) -> Decision:
    """Advance one stage without checking the conditions.

    Args:
        spec: The declared rollout.
        record: Its record.
        findings: Findings of its run.
        now: With a timezone.
    """
    index = next_stage_index(spec, record)
    if index is None:
        return record, ()
    if index == record.stage_index:
        cause = "through all stages"
        after = replace_fields(record, phase=Phase.PROMOTED, since=now, cause=cause)
        return after, (DecisionStep(StepKind.PROMOTE, cause),)
    unknown = findings.live_by_epoch.get(0, Flow())
    cause = f"stage {stage_name(spec, record.stage_index)} → {stage_name(spec, index)}"
    after = replace_fields(
        record,
        phase=Phase.LIVE,
        stage_index=index,
        since=now,
        stage_epoch=findings.epoch,
        stage_from_seconds=unknown.seconds,
        stage_from_pairs=unknown.pairs,
        cause=cause,
    )
    return after, (DecisionStep(StepKind.ADVANCE, cause),)


def roll_back(
    record: RolloutRecord, now: datetime, step: DecisionStep, verdict: Verdict = Verdict.FAIL
) -> Decision:
    """Take the candidate out of service."""
    after = replace_fields(
        record, phase=Phase.ROLLED_BACK, since=now, verdict=verdict, cause=step.cause
    )
    return after, (step,)


def restart(record: RolloutRecord, now: datetime, cause: str) -> RolloutRecord:
    """Start again in shadow, with a fresh run; an operator's hold stays.

    The guard's alpha is fresh. The alpha of proof is shared with earlier runs of the same builds.
    """
    is_operators = record.held is not None and record.held.by == "operator"
    return RolloutRecord(
        phase=Phase.SHADOW,
        since=now,
        run=record.next_run,
        slices=record.slices,
        cause=cause,
        held=record.held if is_operators else None,
        earlier_runs=record.runs_so_far,
        released={},
    )


def replace_fields(record: RolloutRecord, **update: object) -> RolloutRecord:
    """Copy a record with some fields replaced."""
    return record.model_copy(update=update)
