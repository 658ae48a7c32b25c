"""Events of changes that operators make to flags, drafted against the state they change. Pure."""

from datetime import datetime

from penumbra.deployments.errors import Conflict, NotFound
from penumbra.deployments.history import config_effects
from penumbra.deployments.history.changes import Change
from penumbra.deployments.history.events import Draft, FlagPayload, Kind
from penumbra.deployments.history.flag_edits import validated
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.record import Phase
from penumbra.router.flags.routing_table import Flag


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
        config_effects.require_readable(state, name, is_kill=change.kind is Kind.KILL)
        _require_unchanged(state, name, change.expected_epoch)
        before = state.flags[name]
        after = validated(name, model, edit(before, model))
        config_effects.require_unguarded(state, name, before, after)
        if after != before:
            payload = FlagPayload(before=before, after=after)
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


def _require_unchanged(state: State, name: str, expected_epoch: int | None) -> None:
    changed = state.changed[name]
    if expected_epoch is not None and changed > expected_epoch:
        raise Conflict(
            f"the flag of {name} was changed in epoch {changed}, after epoch {expected_epoch}"
            " on which this change is based: look at it again"
        )
