"""State of an installation: the fold of its events, and nothing else. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from penumbra.deployments.history.events import ConfigPayload, Draft, Event, Kind
from penumbra.deployments.history.hosted_engines import Engines, Starting, held_back
from penumbra.deployments.history.identities import AccessPayload, Identities
from penumbra.deployments.history.set_aside import ACCESS, EVERY_MODEL, Aside, SetAside, in_force
from penumbra.deployments.history.split_places import Places, places_of
from penumbra.deployments.rollouts.flag_effects import watches_of
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import WATCHED, Key, Rollout
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Snapshot
from penumbra.router.flags.tenant_keys import KeySettings
from penumbra.router.link.table_identity import Restriction, restrictions_of


@dataclass(frozen=True, slots=True)
class State:
    """State after all events."""

    epoch: int = 0
    models: Mapping[str, ModelSnapshot] = field(default_factory=dict)
    """Models as configured, each with its flag in force and the watches of its rollouts."""
    flags: Mapping[str, Flag] = field(default_factory=dict)
    """Flags by model, also of models that are not configured at the moment."""
    changed: Mapping[str, int] = field(default_factory=dict)
    """Model -> epoch of the last event that touched it."""
    rollouts: Mapping[Key, Rollout] = field(default_factory=dict)
    """By (model, candidate), in the order in which they were first applied."""
    places: Places = field(default_factory=dict)
    """Places in splits, also of models that are not configured at the moment."""
    aside: Aside = field(default_factory=dict)
    """Events that cannot be read, by model; these models are served by the baseline alone."""

    keys: tuple[KeySettings, ...] | None = None
    """API keys; None: no configuration told of any, and each gateway has those of its file."""
    configured: int = 0
    """Epoch of the last configuration; 0: there was none."""
    identities: Identities = field(default_factory=Identities)
    """People and tools with tokens of their own."""

    engines: Engines | None = None
    """Engines of the variants that are hosted here; None: no configuration told of any, and each
    `penumbra up` has those of its file."""
    starting: Starting = frozenset()
    """Those that do not answer yet."""

    def guard_alpha(self, model: str) -> float:
        """Sum the alphas of the candidates of a model that are under guard now.

        Any of them is falsely rolled back with at most this probability, within its horizon.
        """
        return sum(
            rollout.spec.guard_alpha
            for (name, _), rollout in self.rollouts.items()
            if name == model and rollout.record.phase in WATCHED
        )

    @property
    def restrictions(self) -> dict[str, Restriction]:
        """Restrictions of the flags, by model; an engine that is starting makes none."""
        return restrictions_of(Snapshot(epoch=self.epoch, models=dict(self.models)))

    def snapshot(self) -> Snapshot:
        """The routing table."""
        models = {
            name: held_back(name, model, self.starting) for name, model in self.models.items()
        }
        return Snapshot(epoch=self.epoch, models=models, keys=self.keys)


EMPTY = State()


def fold(events: Iterable[Event], state: State = EMPTY) -> State:
    """Apply events that follow those of `state`.

    Raises:
        ValueError: An epoch is missing, or an event belongs to a model that no event configured.
    """
    for event in events:
        state = apply_event(state, event)
    return state


def apply_event(state: State, event: Event) -> State:
    """Apply one more event.

    Raises:
        ValueError: An epoch is missing, or the event belongs to a model that no event configured.
    """
    if event.epoch != state.epoch + 1:
        raise ValueError(f"epoch {event.epoch} follows epoch {state.epoch}: events are missing")
    payload = event.payload
    if isinstance(payload, ConfigPayload):
        return _apply_config(state, event.epoch, payload)
    if isinstance(payload, AccessPayload):
        identities = state.identities.after(payload)
        return replace(state, epoch=event.epoch, identities=identities)
    if isinstance(payload, RolloutPayload):
        rollouts = {**state.rollouts, payload.after.key: payload.after}
        return _apply_flag(replace(state, rollouts=rollouts), event, payload.flag_after)
    return _apply_flag(state, event, payload.after)


def apply_drafts(state: State, drafts: Iterable[Draft], now: datetime) -> State:
    """Apply drafts as the events that they are about to be.

    Raises:
        ValueError: One of them belongs to a model that no event configured.
    """
    for draft in drafts:
        state = apply_event(state, Event.of(draft, state.epoch + 1, now))
    return state


def set_aside(state: State, found: SetAside) -> State:
    """Go past an event that cannot be read: its model is served by the baseline alone.

    One of an identity concerns no model: no identity is let in while it is set aside.
    """
    if found.is_settled:
        return replace(state, epoch=found.epoch)
    if found.model == ACCESS:
        aside = {ACCESS: found} | dict(state.aside)
        identities = replace(state.identities, aside=aside[ACCESS])
        return replace(state, epoch=found.epoch, aside=aside, identities=identities)
    name = found.model or EVERY_MODEL
    aside = {name: found} | dict(state.aside)  # the first one stays
    state = replace(state, epoch=found.epoch, aside=aside)
    concerned = [found.model] if found.model else [*state.models]
    models = {
        name: _in_force(state, name, state.models[name], state.flags[name])
        for name in concerned
        if name in state.models
    }
    changed = dict.fromkeys(models, found.epoch)
    return replace(state, models={**state.models, **models}, changed={**state.changed, **changed})


def _apply_config(state: State, epoch: int, payload: ConfigPayload) -> State:
    flags = {name: model.flag for name, model in payload.models.items()} | dict(state.flags)
    whole = state.aside.get(EVERY_MODEL)
    if whole is not None and whole.kind == Kind.CONFIG:
        # This one says again what the one that cannot be read had said.
        rest = {name: found for name, found in state.aside.items() if name != EVERY_MODEL}
        state = replace(state, aside=rest)
    models = {
        name: _in_force(state, name, model, flags[name]) for name, model in payload.models.items()
    }
    changed = {
        name: epoch if models[name] != state.models.get(name) else state.changed[name]
        for name in models
    }
    places = {**state.places, **{name: places_of(model) for name, model in models.items()}}
    return replace(
        state,
        epoch=epoch,
        models=models,
        flags=flags,
        changed=changed,
        places=places,
        keys=state.keys if payload.keys is None else payload.keys,
        engines=state.engines if payload.engines is None else payload.engines,
        starting=state.starting if payload.engines is None else frozenset(payload.starting),
        configured=epoch,
    )


def _apply_flag(state: State, event: Event, flag: Flag) -> State:
    name = event.model
    if name is None or name not in state.flags:
        raise ValueError(f"epoch {event.epoch} changes the flag of {name!r}, never configured")
    state = replace(state, epoch=event.epoch, flags={**state.flags, name: flag})
    if name not in state.models:
        return state
    return replace(
        state,
        models={**state.models, name: _in_force(state, name, state.models[name], flag)},
        changed={**state.changed, name: event.epoch},
    )


def _in_force(state: State, name: str, model: ModelSnapshot, flag: Flag) -> ModelSnapshot:
    own = (rollout for key, rollout in state.rollouts.items() if key[0] == name)
    flag = in_force(state.aside, name, flag)
    return model.model_copy(update={"flag": flag, "watches": watches_of(model, own)})
