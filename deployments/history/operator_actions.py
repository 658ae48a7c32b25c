"""What people may do with a rollout. Pure; each verb is a function of where the rollout stands."""

from collections.abc import Iterator
from datetime import datetime

from penumbra.deployments.errors import Conflict, NotFound, RolloutRefused
from penumbra.deployments.history.config_effects import end_rollout, obstacle_of
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.gates import advance_conditions
from penumbra.deployments.rollouts.record import (
    WATCHED,
    Hold,
    Phase,
    Rollout,
    RolloutRecord,
    slices_of,
)
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.deployments.rollouts.transitions import (
    DecisionStep,
    StepKind,
    advance,
    replace_fields,
    restart,
    roll_back,
)
from penumbra.router.flags.routing_table import ModelSnapshot
from penumbra.router.flags.rule_checks import one_of, problem

WAIVED = frozenset({"time"})
"""Gates that a person may open."""


def apply(state: State, spec: RolloutSpec, reason: str, now: datetime, name: str) -> Rollout:
    """A rollout that begins, or begins anew with another spec; the same one if nothing changes.

    One that was rolled back stays so: the new spec waits for the re-arming.

    Args:
        state: Of the installation.
        spec: What is declared.
        reason: Why.
        now: With a timezone.
        name: Of the runs, if this is the first rollout of the candidate; unique.

    Raises:
        NotFound: No such model.
        RolloutRefused: The spec does not fit its model; says everything that is wrong.
    """
    model = state.models.get(spec.model)
    if model is None:
        raise NotFound.among("model", spec.model, state.models)
    problems = tuple(_problems(spec, model))
    if problems:
        raise RolloutRefused("; ".join(problems), param="spec")
    old = state.rollouts.get((spec.model, spec.candidate))
    if old is None:
        record = RolloutRecord(
            phase=Phase.SHADOW, since=now, run=f"{name}-1", slices=slices_of(model), cause=reason
        )
        return Rollout(spec=spec, record=record)
    if old.spec == spec and old.record.phase is not Phase.OFF:
        return old
    if old.record.phase is Phase.ROLLED_BACK:
        return Rollout(
            spec=spec, record=replace_fields(old.record, stage_index=0, run=old.record.next_run)
        )
    record = replace_fields(restart(old.record, now, reason), slices=slices_of(model))
    if old.record.phase is Phase.OFF:
        record = replace_fields(record, held=None)
    return Rollout(spec=spec, record=record)


def promote(state: State, rollout: Rollout, findings: Findings, now: datetime) -> Rollout:
    """One stage on, without waiting for the stage's time to be over.

    Raises:
        Conflict: Something else is missing; says what.
    """
    obstacle = obstacle_of(state, rollout)
    shut = [
        f"{gate.name}: found {gate.found}, wanted {gate.wanted}"
        for gate in advance_conditions(rollout.spec, rollout.record, findings, now, obstacle)
        if not gate.is_met and gate.name not in WAIVED
    ]
    if shut:
        raise Conflict(f"{_name(rollout)} cannot advance yet: {'; '.join(shut)}")
    record, steps = advance(rollout.spec, rollout.record, now)
    if not steps or rollout.record.phase not in WATCHED:
        raise Conflict(f"{_name(rollout)} is {rollout.stage}: there is no next stage")
    return rollout.model_copy(update={"record": record})


def hold(rollout: Rollout, reason: str) -> Rollout:
    """It keeps its share and advances no more.

    Raises:
        Conflict: It runs no more.
    """
    _require_watched(rollout)
    return _with(rollout, held=Hold(by="operator", cause=reason), cause=f"held: {reason}")


def resume(rollout: Rollout, reason: str) -> Rollout:
    """It may advance again.

    Raises:
        Conflict: It was not held.
    """
    _require_watched(rollout)
    if rollout.record.held is None:
        raise Conflict(f"{_name(rollout)} is not held")
    return _with(rollout, held=None, cause=f"resumed: {reason}")


def rollback(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    """Everybody gets the baseline, until it is re-armed.

    Raises:
        Conflict: It runs no more.
    """
    _require_watched(rollout)
    record, _ = roll_back(
        rollout.record, now, DecisionStep(StepKind.ROLLBACK, f"by hand: {reason}")
    )
    return rollout.model_copy(update={"record": record})


def rearm(state: State, rollout: Rollout, reason: str, now: datetime) -> Rollout:
    """Shadow again, with fresh evidence and a fresh alpha.

    Raises:
        Conflict: It was not rolled back.
    """
    if rollout.record.phase is not Phase.ROLLED_BACK:
        raise Conflict(f"{_name(rollout)} is {rollout.stage}, wanted one that was rolled back")
    record = restart(rollout.record, now, f"re-armed: {reason}")
    model = state.models.get(rollout.spec.model)
    if model is not None:
        record = replace_fields(record, slices=slices_of(model))
    return rollout.model_copy(update={"record": replace_fields(record, held=None)})


def end(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    """It ends: nothing is compared any more, and the candidate's share is gone.

    Raises:
        Conflict: It has ended before.
    """
    if rollout.record.phase is Phase.OFF:
        raise Conflict(f"{_name(rollout)} has ended already")
    return end_rollout(rollout, now, f"ended: {reason}")


def _require_watched(rollout: Rollout) -> None:
    if rollout.record.phase not in WATCHED:
        raise Conflict(f"{_name(rollout)} is {rollout.stage}: re-arm or apply it first")


def _name(rollout: Rollout) -> str:
    return f"the rollout of {rollout.spec.candidate} ({rollout.spec.model})"


def _with(rollout: Rollout, **update: object) -> Rollout:
    return rollout.model_copy(update={"record": replace_fields(rollout.record, **update)})


def _problems(spec: RolloutSpec, model: ModelSnapshot) -> Iterator[str]:
    candidates = [name for name in model.variants if name != model.baseline]
    if spec.candidate not in candidates:
        yield problem("candidate", spec.candidate, one_of(candidates))
    slices = slices_of(model)
    named = {
        "mirror.slices": spec.mirror.slices,
        "required_slices": spec.required_slices or (),
        **{f"guardrails.{one.signal.value}.slices": one.slices for one in spec.guardrails},
    }
    for path, names in named.items():
        for name in names:
            if name not in slices:
                yield problem(path, name, one_of(slices))
