"""Counters of the history: changes by kind, and changes and rollbacks of rollouts. Pure.

Every event is counted once, in order of epochs, from the store's first event on. So the counts
survive a restart and never go down.
"""

from collections import Counter
from collections.abc import Iterable

from penumbra.deployments.actors import actor_class
from penumbra.deployments.history.events import Event
from penumbra.deployments.rollouts.change_text import change_of
from penumbra.deployments.rollouts.payload import RolloutPayload


class HistoryCounters:
    """Counts of one store's history."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        """Kind of event -> number of events."""
        self.changes: Counter[tuple[str, str, str]] = Counter()
        """(model, candidate, change) -> number of events."""
        self.rollbacks: Counter[tuple[str, str, str]] = Counter()
        """(model, candidate, class of the actor) -> number of rollbacks."""
        self.last_rollback: dict[tuple[str, ...], float] = {}
        """(model, candidate) -> time of the last rollback, Unix seconds."""
        self.decided: dict[tuple[str, ...], str] = {}
        """(model, candidate) -> run of the guard's last rollback or quarantine."""

    def take(self, events: Iterable[Event]) -> None:
        """Counts events that follow those counted so far."""
        for event in events:
            self.kinds[event.kind.value] += 1
            if isinstance(event.payload, RolloutPayload):
                self._take(event, event.payload)

    def _take(self, event: Event, payload: RolloutPayload) -> None:
        key, change = payload.after.key, change_of(payload)
        self.changes[(*key, change)] += 1
        if payload.decided is not None:
            self.decided[key] = payload.after.record.run
        if change == "rolled_back":
            self.rollbacks[(*key, actor_class(event.actor))] += 1
            self.last_rollback[key] = event.at.timestamp()
