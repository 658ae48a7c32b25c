"""Evidence as the store holds it: reads it for all rollouts, and deletes what is of no more use.

It is read from a checkpoint and the reports after it. Both run on the thread that commits.
"""

import logging
from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from penumbra.deployments.control.kept_folds import evidence_at_start
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.evidence.judge import EvidenceBook, evidence_of, fold_stored_reports
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.deployments.store import observation_tables
from penumbra.deployments.store.store import Store

log = logging.getLogger(__name__)


def read(store: Store, key: bytes | None, book: EvidenceBook, rollouts: Iterable[Rollout]) -> None:
    """Read the evidence of all rollouts anew.

    A run of which a report cannot be read begins anew: evidence may be missing from it.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    lost: set[str] = set()
    evidence = []
    for rollout in rollouts:
        try:
            found = evidence_at_start(store, key, rollout)
            evidence.append(_fold(store, rollout, lost, *found))
        except StoreUnavailable:
            raise
        except Exception:
            # A checkpoint must never stand in the way: without it the rows tell all.
            log.exception("checkpoint_unusable", extra={"checkpoint": rollout.record.run})
            evidence.append(_fold(store, rollout, lost, evidence_of(rollout), 0))
    book.begin(evidence)
    book.lose(lost)


def prune(
    store: Store, state: State, decided: Iterable[str], feedback_before: datetime, most: int
) -> int:
    """Delete some reports of runs that nothing refers to, and some old judgements.

    Args:
        store: The store.
        state: The state of the installation.
        decided: Runs of the guard's last decisions, which can be explained.
        feedback_before: Judgements of before then are too old; with a timezone.
        most: The most rows to delete.

    Returns:
        How many were deleted; fewer than `most` when there are no more.

    Raises:
        StoreUnavailable: The store cannot be read or written.
    """
    if state.aside:
        return 0  # a row that cannot be read may name a run that is to be kept
    keep = {rollout.record.run for rollout in state.rollouts.values()} | {*decided}
    return store.write(lambda c: observation_tables.prune(c, keep, feedback_before, most))


def _fold(
    store: Store, rollout: Rollout, lost: set[str], evidence: RunEvidence, position: int
) -> RunEvidence:
    if rollout.record.phase is Phase.OFF:
        return evidence
    unreadable: list[int] = []

    def fold(connection: sa.Connection) -> None:
        stored = observation_tables.reports(
            connection, evidence.run, unreadable=unreadable, after=position
        )
        fold_stored_reports(evidence, stored)

    store.look(fold)
    if unreadable:
        lost.add(evidence.run)
    return evidence
