"""The ways in which a record changes, whoever decides it: the guard or a person. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from penumbra.deployments.rollouts.findings import Tripped
from penumbra.deployments.rollouts.record import Phase, RolloutRecord, Verdict, stage_name
from penumbra.deployments.rollouts.spec import RolloutSpec


class StepKind(StrEnum):
    """What a decision did."""

    ROLLBACK = "rollback"
    QUARANTINE = "quarantine"
    HOLD = "hold"
    ALERT = "alert"
    RESET = "reset"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    CALIBRATE = "calibrate"
    IDENTIFY = "identify"
    RELEASE = "release"
    PASS = "pass"  # noqa: S105 - no password
    INCONCLUSIVE = "inconclusive"
    ADVANCE = "advance"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True)
class DecisionStep:
    """One thing that was decided, and why."""

    did: StepKind
    cause: str
    tripped: Tripped | None = None


Decision = tuple[RolloutRecord, tuple[DecisionStep, ...]]


def summary(steps: Sequence[DecisionStep]) -> str:
    """What was decided, in words."""
    return "; ".join(step.cause for step in steps)


def next_stage_index(spec: RolloutSpec, record: RolloutRecord) -> int | None:
    """The stage that an advance leads to; the last one again is promotion; None: nowhere."""
    if record.phase is Phase.PROMOTED or len(spec.stages) == 1:
        return None
    return min(record.stage_index + 1, len(spec.stages) - 1)


def advance(spec: RolloutSpec, record: RolloutRecord, now: datetime) -> Decision:
    """One stage on, whatever the gates say."""
    index = next_stage_index(spec, record)
    if index is None:
        return record, ()
    if index == record.stage_index:
        cause = "through all stages"
        after = replace_fields(record, phase=Phase.PROMOTED, since=now, cause=cause)
        return after, (DecisionStep(StepKind.PROMOTE, cause),)
    cause = f"stage {stage_name(spec, record.stage_index)} → {stage_name(spec, index)}"
    after = replace_fields(record, phase=Phase.LIVE, stage_index=index, since=now, cause=cause)
    return after, (DecisionStep(StepKind.ADVANCE, cause),)


def roll_back(record: RolloutRecord, now: datetime, step: DecisionStep) -> Decision:
    """Out of service."""
    after = replace_fields(
        record, phase=Phase.ROLLED_BACK, since=now, verdict=Verdict.FAIL, cause=step.cause
    )
    return after, (step,)


def restart(record: RolloutRecord, now: datetime, cause: str) -> RolloutRecord:
    """Shadow again, with a fresh run and a fresh alpha; an operator's hold stays."""
    is_operators = record.held is not None and record.held.by == "operator"
    return RolloutRecord(
        phase=Phase.SHADOW,
        since=now,
        run=record.next_run,
        slices=record.slices,
        cause=cause,
        held=record.held if is_operators else None,
    )


def replace_fields(record: RolloutRecord, **update: object) -> RolloutRecord:
    """A copy with some fields replaced."""
    return record.model_copy(update=update)
