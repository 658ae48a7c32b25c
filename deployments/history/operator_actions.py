"""Actions of operators on a rollout, each a function from the rollout to the changed one. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from penumbra.deployments.errors import Conflict, NotFound, RolloutRefused
from penumbra.deployments.history.config_effects import end_rollout, obstacle_of
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.gates import advance_conditions
from penumbra.deployments.rollouts.limits import spec_problems
from penumbra.deployments.rollouts.record import (
    WATCHED,
    Hold,
    Phase,
    Rollout,
    RolloutRecord,
    slices_of,
)
from penumbra.deployments.rollouts.spec import PROVED, RolloutSpec
from penumbra.deployments.rollouts.transitions import (
    DecisionStep,
    StepKind,
    advance,
    replace_fields,
    restart,
    roll_back,
)
from penumbra.router.flags.routing_table import ModelSnapshot
from penumbra.router.flags.rule_checks import match_problems, one_of, problem

WAIVED = frozenset({"time"})
"""Conditions of an advance that an operator may waive."""


def apply(state: State, spec: RolloutSpec, reason: str, now: datetime, name: str) -> Rollout:
    """Start a rollout, or start it again with another spec.

    A rollout that runs with the same spec stays as it is. One that was rolled back stays so, and
    uses the new spec once it is re-armed.

    Args:
        state: State of the installation.
        spec: The declared rollout.
        reason: Stored as the cause.
        now: With a timezone.
        name: Name of the runs, if this is the first rollout of the candidate; unique.

    Raises:
        NotFound: There is no such model.
        RolloutRefused: The spec does not fit its model; names every problem.
    """
    model = state.models.get(spec.model)
    if model is None:
        raise NotFound.among("model", spec.model, state.models)
    problems = (*spec_problems(spec), *_problems(spec, model))
    if problems:
        raise RolloutRefused("; ".join(problems), param="spec")
    old = state.rollouts.get((spec.model, spec.candidate))
    if old is None:
        record = RolloutRecord(
            phase=Phase.SHADOW,
            since=now,
            run=f"{name}-1",
            slices=slices_of(model),
            cause=reason,
            earlier_runs=_runs_of_model(state, spec.model),
            released={},
        )
        return Rollout(spec=spec, record=record)
    if old.spec == spec and old.record.phase is not Phase.OFF:
        return old
    if old.record.phase is Phase.ROLLED_BACK:
        return Rollout(
            spec=spec,
            record=replace_fields(
                old.record,
                stage_index=0,
                run=old.record.next_run,
                arbitration=None,
                earlier_runs=old.record.runs_so_far,
                is_counted=False,
                stale={},
                revalidations=0,
            ),
        )
    record = replace_fields(restart(old.record, now, reason), slices=slices_of(model))
    if old.record.phase is Phase.OFF:
        record = replace_fields(record, held=None)
    return Rollout(spec=spec, record=record)


def _runs_of_model(state: State, model: str) -> dict[str, int]:
    """Runs of all builds of a model: the same build may have been another candidate before."""
    runs: dict[str, int] = {}
    for (name, _), rollout in state.rollouts.items():
        if name == model:
            for key, count in rollout.record.runs_so_far.items():
                runs[key] = runs.get(key, 0) + count
    return runs


def promote(state: State, rollout: Rollout, findings: Findings, now: datetime) -> Rollout:
    """Advance one stage, even if the stage's time is not over.

    Raises:
        Conflict: Another condition is not met; names all that are not.
    """
    obstacle, findings = obstacle_of(state, rollout), replace(findings, epoch=state.epoch + 1)
    unmet = [
        f"{condition.name}: found {condition.found}, wanted {condition.wanted}"
        for condition in advance_conditions(rollout.spec, rollout.record, findings, obstacle)
        if not condition.is_met and condition.name not in WAIVED
    ]
    if unmet:
        raise Conflict(f"{_name(rollout)} cannot advance yet: {'; '.join(unmet)}")
    record, steps = advance(rollout.spec, rollout.record, findings, now)
    if not steps or rollout.record.phase not in WATCHED:
        raise Conflict(f"{_name(rollout)} is {rollout.stage}: there is no next stage")
    return rollout.model_copy(update={"record": record})


def hold(rollout: Rollout, reason: str) -> Rollout:
    """Hold a rollout: it keeps its share and does not advance.

    Raises:
        Conflict: It does not run.
    """
    _require_watched(rollout)
    return _with(rollout, held=Hold(by="operator", cause=reason), cause=f"held: {reason}")


def resume(rollout: Rollout, reason: str) -> Rollout:
    """Let a held rollout advance again.

    Raises:
        Conflict: It was not held.
    """
    _require_watched(rollout)
    if rollout.record.held is None:
        raise Conflict(f"{_name(rollout)} is not held")
    return _with(rollout, held=None, cause=f"resumed: {reason}")


def rollback(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    """Give all traffic to the baseline until the rollout is re-armed.

    Raises:
        Conflict: It does not run.
    """
    _require_watched(rollout)
    record, _ = roll_back(
        rollout.record, now, DecisionStep(StepKind.ROLLBACK, f"by hand: {reason}")
    )
    return rollout.model_copy(update={"record": record})


def rearm(state: State, rollout: Rollout, reason: str, now: datetime) -> Rollout:
    """Start a rolled-back rollout again in shadow, with fresh evidence and a fresh alpha.

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
    """End a rollout: nothing is compared any more, and the candidate's share is gone.

    Raises:
        Conflict: It has ended already.
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
    yield from _scope_problems(spec, slices)
    named = {
        "mirror.slices": spec.mirror.slices,
        "required_slices": spec.required_slices or (),
        **{
            f"guardrails.{guardrail.signal.value}.slices": guardrail.slices
            for guardrail in spec.guardrails
        },
    }
    for path, names in named.items():
        for name in names:
            if name not in slices:
                yield problem(path, name, one_of(slices))
    for guardrail in spec.guardrails:
        if guardrail.missing == "worst" and guardrail.signal not in PROVED:
            path = f"guardrails.{guardrail.signal.value}.missing"
            yield problem(path, "worst", "ignore: it counts what happened, and misses nothing")


def _scope_problems(spec: RolloutSpec, slices: tuple[str, ...]) -> Iterator[str]:
    if spec.scope is None:
        return
    yield from match_problems("scope", spec.scope.match(), slices)
    for name in spec.required_slices or ():
        if not spec.has_slice(name):
            yield problem("required_slices", name, one_of(spec.scope.slices))
