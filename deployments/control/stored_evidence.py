"""Evidence as the store holds it: reads it for all rollouts, and deletes what is of no more use.

Both run on the thread that commits.
"""

from collections.abc import Iterable
from datetime import datetime

from penumbra.deployments.evidence.judge import EvidenceBook, runs_to_keep
from penumbra.deployments.history.events import Event
from penumbra.deployments.history.set_aside import SetAside
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.deployments.store import observation_tables
from penumbra.deployments.store.store import Store


def read(store: Store, book: EvidenceBook, rollouts: Iterable[Rollout]) -> None:
    """Fold the stored reports of all rollouts anew.

    A run of which a report cannot be read begins anew: evidence may be missing from it.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    rollouts = [*rollouts]
    runs = [rollout.record.run for rollout in rollouts if rollout.record.phase is not Phase.OFF]
    lost: list[int] = []
    store.look(lambda c: book.begin(rollouts, observation_tables.reports(c, runs, unreadable=lost)))
    book.lose(store.look(lambda c: observation_tables.runs_of(c, lost)))


def prune(store: Store, rollouts: Iterable[Rollout], feedback_before: datetime) -> None:
    """Delete reports of runs that nothing refers to, and old judgements.

    Raises:
        StoreUnavailable: The store cannot be read or written.
    """
    found = store.stored()
    events = [each for each in found if isinstance(each, Event)]
    if any(isinstance(each, SetAside) and not each.is_settled for each in found):
        return  # a row that cannot be read may name a run that is to be kept
    keep = runs_to_keep(rollouts, events)
    store.write(lambda c: observation_tables.prune(c, keep, feedback_before))
