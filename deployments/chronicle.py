"""What the history comes to in numbers: changes by kind, rollouts by what became of them. Pure.

Every event is counted once, in the order of their epochs, from the store's first one on. So the
counts survive a restart and never go down.
"""

from collections import Counter
from collections.abc import Iterable

from deployments.events import Event
from deployments.rollouts.judging import GUARD
from deployments.rollouts.payload import RolloutPayload
from deployments.rollouts.record import Phase, Rollout

ALERTMANAGER = "alertmanager"
"""Who decides by Alertmanager's webhook, in the history."""


def actor_class(actor: str) -> str:
    """A value of the label `actor`: who decided, without naming a person."""
    return actor if actor in {GUARD, ALERTMANAGER} else "operator"


def change_of(payload: RolloutPayload) -> str:
    """A value of the label `change`: what an event made of a rollout.

    One event may hold several decisions; the first in this order names it, so that whatever takes
    traffic away is never hidden behind what gives some.
    """
    before, after = payload.before, payload.after
    if before is None:
        return "applied"
    was, now = before.record.phase, after.record.phase
    if was is not now:
        named = _by_phase(was, now)
        if named is not None:
            return named
    if before.spec != after.spec:
        return "applied"
    return _within_phase(before, after)


def _by_phase(was: Phase, now: Phase) -> str | None:
    if now is Phase.ROLLED_BACK:
        return "rolled_back"
    if now is Phase.OFF:
        return "ended"
    if was is Phase.OFF:
        return "applied"
    return "rearmed" if was is Phase.ROLLED_BACK else None


def _within_phase(before: Rollout, after: Rollout) -> str:
    old, new = before.record, after.record
    if old.run != new.run:
        return "restarted"
    if set(new.quarantined) - set(old.quarantined):
        return "quarantined"
    if new.phase is Phase.PROMOTED and old.phase is not Phase.PROMOTED:
        return "promoted"
    if new.step > old.step:
        return "advanced"
    if (new.held is None) != (old.held is None):
        return "held" if new.held else "resumed"
    return "other"


class Chronicle:
    """The counts of one store's history."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        """Kind of event -> events."""
        self.changes: Counter[tuple[str, str, str]] = Counter()
        """(model, candidate, change) -> events."""
        self.rollbacks: Counter[tuple[str, str, str]] = Counter()
        """(model, candidate, who decided) -> rollbacks."""
        self.last_rollback: dict[tuple[str, ...], float] = {}
        """(model, candidate) -> when it was; Unix seconds."""

    def take(self, events: Iterable[Event]) -> None:
        """Count events that follow those counted so far."""
        for event in events:
            self.kinds[event.kind.value] += 1
            if isinstance(event.payload, RolloutPayload):
                self._take(event, event.payload)

    def _take(self, event: Event, payload: RolloutPayload) -> None:
        key, change = payload.after.key, change_of(payload)
        self.changes[(*key, change)] += 1
        if change == "rolled_back":
            self.rollbacks[(*key, actor_class(event.actor))] += 1
            self.last_rollback[key] = event.at.timestamp()
