"""Dry fold of events before their commit: what cannot be folded never gets into the store. Pure.

Each event is read back from the text that the store will hold, applied to a state that is thrown
away if anything fails, and, where it begins a rollout with another spec, tried on evidence of its
own. So a restart reads what this process has read already. A routing table that fits through no
link is refused as well, unless it was no smaller before: no kill and no rollback ever is.

Reading order: fold_ahead.
"""

from collections.abc import Iterable
from datetime import datetime

from pydantic import ValidationError

from penumbra.deployments.errors import ChangeUnfoldable
from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.history.config_effects import obstacle_of
from penumbra.deployments.history.events import Draft, Event, Kind
from penumbra.deployments.history.state import State, apply_event
from penumbra.deployments.history.table_size import size_problem
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.monitoring.observations import Arm, Counts, Pair, Run, RunReport, Signal
from penumbra.router.bounds import TABLE_BYTES
from penumbra.router.flags.routing_table import ModelSnapshot

_PARAMS = {Kind.CONFIG: "models", Kind.ROLLOUT: "spec"}
"""Kind of a change -> the field to blame for a table that is too large."""


def fold_ahead(state: State, drafts: Iterable[Draft], at: datetime) -> State:
    """Fold events as a later start will read them; returns the state after them.

    Args:
        state: The state that they follow; it stays as it is.
        drafts: The events, which are not stored yet.
        at: Their time, with a timezone.

    Raises:
        ChangeUnfoldable: One of them cannot be folded; names the field where it is known.
    """
    before = state
    drafts = tuple(drafts)
    for draft in drafts:
        try:
            _require_storable(draft)
            state = _fold(state, Event.of(draft, state.epoch + 1, at))
        except ChangeUnfoldable:
            raise
        except Exception as error:
            field, detail = _told(error)
            raise ChangeUnfoldable(
                f"this {draft.kind.value} change cannot be put into force: {detail}", param=field
            ) from error
    if drafts:
        _require_deliverable(before, state, drafts[0].kind)
    return state


def _fold(state: State, event: Event) -> State:
    read = Event.stored(*event.columns())
    after = apply_event(state, read)
    if isinstance(read.payload, RolloutPayload):
        _try_rollout(after, read, read.payload)
    names = after.models if event.model is None else [event.model]
    for model in (after.models.get(name) for name in names):
        if model is not None:
            ModelSnapshot.model_validate_json(model.model_dump_json(exclude_defaults=True))
    return after


def _require_deliverable(before: State, after: State, kind: Kind) -> None:
    found = size_problem(before, after, TABLE_BYTES)
    if found is not None:
        raise ChangeUnfoldable(found, param=_PARAMS.get(kind, "flag"))


def _try_rollout(state: State, event: Event, payload: RolloutPayload) -> None:
    """Try evidence and decision of a rollout whose spec is new, on observations at the extremes."""
    rollout = payload.after
    is_known = payload.before is not None and payload.before.spec == rollout.spec
    if is_known or rollout.record.phase is Phase.OFF:
        return
    evidence = evidence_of(rollout)
    for _ in range(2):
        evidence.fold("dry fold", _extremes(rollout.spec, rollout.record.run))
        findings = evidence.findings()
        obstacle = obstacle_of(state, rollout)
        decide(rollout.spec, rollout.record, findings, event.at, obstacle)


def _extremes(spec: RolloutSpec, run: str) -> RunReport:
    slice_name = "other"
    pairs = [
        Pair(
            request_id="dry-fold",
            slice=slice_name,
            cluster=number,
            arm=arm,
            answered_by=answered_by,
            tokens=1,
            displacement=displacement,
            harm=harm,
            decode_gap=gap,
        )
        for number, (arm, answered_by, displacement, harm, gap) in enumerate(
            (
                (arm, answered_by, displacement, harm, gap)
                for arm in Arm
                for answered_by in ("", spec.candidate)
                for displacement, harm, gap in ((0.0, -1, -1.0), (1.0, 1, 1.0))
            ),
            start=1,
        )
    ]
    counted = (Signal.FAILURE, Signal.TTFT, Signal.TPOT, Signal.FEEDBACK)
    counts = tuple(
        Counts(slice_name, signal, *seen) for signal in counted for seen in ((1, 0), (0, 1))
    )
    return RunReport(Run(spec.model, spec.candidate, run), pairs=tuple(pairs), counts=counts)


def _require_storable(draft: Draft) -> None:
    for name in ("actor", "reason", "model"):
        if "\0" in (getattr(draft, name) or ""):
            raise ChangeUnfoldable(f"{name}: found NUL, which no database stores", param=name)


def _told(error: Exception) -> tuple[str | None, str]:
    """The field at fault, if the error knows it, and a sentence."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        return field, f"{field}: found {first['input']!r:.80}: {first['msg']}"
    return None, f"{type(error).__name__}: {error}"
