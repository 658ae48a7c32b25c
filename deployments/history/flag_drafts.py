"""Events of changes that operators make to flags, drafted against the state they change. Pure."""

from collections.abc import Mapping
from datetime import datetime

from penumbra.deployments.errors import Conflict, FlagRefused, NotFound
from penumbra.deployments.history import config_effects
from penumbra.deployments.history.changes import Change
from penumbra.deployments.history.events import Draft, FlagPayload, Kind
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.record import Phase
from penumbra.router.flags.routing_table import Flag, ModelSnapshot
from penumbra.router.flags.validate import FlagInvalid, validate_flag


def draft_change(state: State, change: Change) -> list[Draft]:
    """Draft a change; flags that are as wanted already need no event.

    Raises:
        NotFound: No such model.
        Conflict: A flag was changed since the expected epoch, or a rollout decides it.
        FlagRefused: The new flag makes no sense for its model.
    """
    drafts = []
    for name, edit in change.edits.items():
        model = state.models.get(name)
        if model is None:
            raise NotFound.among("model", name, state.models)
        _require_unchanged(state, name, change.expected_epoch)
        after = _validate(name, model, edit(model.flag, model))
        config_effects.require_unguarded(state, name, model.flag, after)
        if after != model.flag:
            payload = FlagPayload(before=model.flag, after=after)
            drafts.append(
                Draft(
                    kind=change.kind,
                    actor=change.actor,
                    reason=change.reason,
                    model=name,
                    payload=payload,
                )
            )
    return drafts


def draft_reset(
    state: State, name: str, flag: Flag, actor: str, reason: str, now: datetime
) -> list[Draft]:
    """Draft the end of a model's rollouts, and a flag that is not validated.

    Raises:
        NotFound: The state holds no flag of that model.
    """
    if name not in state.flags:
        known = ", ".join(state.flags) or "none"
        raise NotFound(f"found no stored flag of {name!r}, wanted one of: {known}")
    drafts = [
        config_effects.draft_of(
            state, config_effects.end_rollout(rollout, now, reason), actor, reason
        )
        for rollout in state.rollouts.values()
        if rollout.spec.model == name and rollout.record.phase is not Phase.OFF
    ]
    payload = FlagPayload(before=state.flags[name], after=flag)
    drafts.append(Draft(kind=Kind.RESET, actor=actor, reason=reason, model=name, payload=payload))
    return drafts


def structure(models: Mapping[str, ModelSnapshot]) -> dict[str, str]:
    """Models of a configuration apart from their flags, as text to compare."""
    # As text: the order of the variants matters, and equal mappings may differ in it.
    return {
        name: model.model_copy(update={"flag": Flag(), "watches": ()}).model_dump_json()
        for name, model in models.items()
    }


def _require_unchanged(state: State, name: str, expected_epoch: int | None) -> None:
    changed = state.changed[name]
    if expected_epoch is not None and changed > expected_epoch:
        raise Conflict(
            f"the flag of {name} was changed in epoch {changed}, after epoch {expected_epoch}"
            " on which this change is based: look at it again"
        )


def _validate(name: str, model: ModelSnapshot, flag: Flag) -> Flag:
    try:
        validate_flag(model, flag)
    except FlagInvalid as error:
        raise FlagRefused(f"the flag of {name} was refused: {error}", param="flag") from error
    return flag
