"""Evidence as the store holds it: reads it for all rollouts, and deletes what is of no more use.

It is read from a checkpoint, or a base, and the reports after it. Both run on the thread that
commits.
"""

import logging
from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from penumbra.deployments.control.kept_folds import (
    BaseLost,
    evidence_at_start,
    evidence_from_base,
)
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.evidence.judge import EvidenceBook, evidence_of, fold_stored_reports
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.deployments.store import base_table, observation_tables
from penumbra.deployments.store.store import Store

log = logging.getLogger(__name__)


def read(store: Store, key: bytes | None, book: EvidenceBook, rollouts: Iterable[Rollout]) -> None:
    """Read the evidence of all rollouts anew.

    A run of which a report cannot be read begins anew: evidence may be missing from it. So does one
    of which reports were deleted, if the base that stands for them cannot be read.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    lost: set[str] = set()
    evidence = []
    for rollout in rollouts:
        try:
            evidence.append(_read(store, key, rollout, lost))
        except BaseLost as error:
            log.error("base_unusable", extra={"run": rollout.record.run, "detail": str(error)})
            evidence.append(evidence_of(rollout))
            told = f"reports were pruned, and what stands for them is lost: {error}"
            evidence[-1].changed = told
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

    def delete(connection: sa.Connection) -> int:
        base_table.keep_only(connection, keep)
        return observation_tables.prune(connection, keep, feedback_before, most)

    return store.write(delete)


def _read(store: Store, key: bytes | None, rollout: Rollout, lost: set[str]) -> RunEvidence:
    run = rollout.record.run
    try:
        return _fold(store, rollout, lost, *evidence_at_start(store, key, rollout))
    except (StoreUnavailable, BaseLost):
        raise
    except Exception:
        # A checkpoint must never stand in the way: without it the rows tell all.
        log.exception("checkpoint_unusable", extra={"checkpoint": run})
    base = store.look(lambda connection: base_table.used(connection, run))
    try:
        return _fold(store, rollout, lost, *evidence_from_base(base, key, rollout))
    except (StoreUnavailable, BaseLost):
        raise
    except Exception as error:
        if base is None:
            raise
        log.exception("checkpoint_unusable", extra={"checkpoint": run})
        raise BaseLost(f"{type(error).__name__}: {error}") from error


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
