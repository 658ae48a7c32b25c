"""Fold of the stored history, which also holds what cannot be read or applied. Pure.

Reading order: fold_stored.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.history.events import Event
from penumbra.deployments.history.set_aside import UNREADABLE, SetAside, problem_of
from penumbra.deployments.history.state import State, apply_event, set_aside
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import Key, Phase, Rollout

Note = Callable[[SetAside], None]


def fold_stored(
    state: State, stored: Iterable[Event | SetAside], note: Note = lambda found: None
) -> State:
    """Fold what a store holds; what cannot be folded is in the state's `aside`.

    Args:
        state: The state that it follows.
        stored: Events in order of their epochs, and those that cannot be read.
        note: Called with each event that cannot be folded; `aside` has the first of each model.
    """
    before, last = state.rollouts, dict[Key, int]()
    for found in stored:
        is_settled = isinstance(found, SetAside) and found.is_settled
        if found.epoch > state.epoch + 1 and not is_settled:
            state = _apply(state, _missing(state.epoch + 1, found.epoch - 1), note)
        state = _apply(state, found, note)
        if isinstance(found, Event) and isinstance(found.payload, RolloutPayload):
            last[found.payload.after.key] = found.epoch
    for rollout, problem in _unusable(before, state.rollouts):
        rest = {key: each for key, each in state.rollouts.items() if key != rollout.key}
        aside = SetAside(last[rollout.key], rollout.spec.model, "rollout", problem)
        note(aside)
        state = replace(set_aside(replace(state, rollouts=rest), aside), epoch=state.epoch)
    return state


def _apply(state: State, found: Event | SetAside, note: Note) -> State:
    if isinstance(found, SetAside):
        if not found.is_settled:
            note(found)
        return set_aside(state, found)
    try:
        return apply_event(state, found)
    except UNREADABLE as error:
        aside = SetAside(found.epoch, found.model, found.kind.value, problem_of(error))
        note(aside)
        return set_aside(state, aside)


def _missing(first: int, last: int) -> SetAside:
    return SetAside(last, None, "missing", f"the store has no rows of epochs {first} to {last}")


def _unusable(
    before: Mapping[Key, Rollout], after: Mapping[Key, Rollout]
) -> Iterator[tuple[Rollout, str]]:
    """Rollouts on which no evidence can be opened, and why: an earlier release let them in."""
    for key, rollout in after.items():
        if rollout == before.get(key) or rollout.record.phase is Phase.OFF:
            continue
        try:
            evidence_of(rollout).findings()
        except UNREADABLE as error:
            yield rollout, f"no evidence can be opened for {key[1]}: {error}"
