"""Folds that a checkpoint holds, as a start finds them; without one all rows are folded.

Where reports of a run were deleted, a base stands for them, which is read like a checkpoint.

Reading order: state_at_start, evidence_at_start, evidence_from_base.
"""

import logging
from dataclasses import dataclass
from typing import TypeVar

from penumbra.deployments.evidence import kept_objects
from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.evidence.kept_objects import Unusable
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.event_digest import Newest
from penumbra.deployments.history.state import State
from penumbra.deployments.metrics.history_counters import HistoryCounters
from penumbra.deployments.rollouts.record import Rollout
from penumbra.deployments.store import base_table, checkpoint_table
from penumbra.deployments.store.base_table import Base
from penumbra.deployments.store.store import Store

T = TypeVar("T")

log = logging.getLogger(__name__)

STATE = "state"
"""Name of the checkpoint of the state; no run has it: a run's name has a number."""


@dataclass(frozen=True, slots=True)
class KeptState:
    """Fold of all events up to one."""

    state: State
    counters: HistoryCounters
    newest: Newest
    """The last event that it holds."""


def state_at_start(store: Store, key: bytes | None) -> KeptState | None:
    """Read the checkpoint of the state; None if there is none that can be used.

    One of a store that has lost events since is of no use: the event that it ends with is not there
    any more, or is another one.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    found = _find(store, key, STATE, KeptState)
    if found is None:
        return None
    kept, _ = found
    return kept if store.name_at(kept.newest.epoch) == kept.newest.digest else None


def evidence_at_start(store: Store, key: bytes | None, rollout: Rollout) -> tuple[RunEvidence, int]:
    """Read the checkpoint of a run's evidence, and the id of the last report that it holds.

    Returns:
        Evidence of no report, and 0, if there is none that can be used.

    Raises:
        StoreUnavailable: The store cannot be read.
        BaseLost: Reports were deleted, and the base that stands for them cannot be read.
    """
    found = _find(store, key, rollout.record.run, RunEvidence)
    if found is None or found[0].spec != rollout.spec or found[0].run != rollout.record.run:
        base = store.look(lambda connection: base_table.used(connection, rollout.record.run))
        return evidence_from_base(base, key, rollout)
    return found


class BaseLost(Exception):
    """A base that cannot be read; the text says why."""


def evidence_from_base(
    base: Base | None, key: bytes | None, rollout: Rollout
) -> tuple[RunEvidence, int]:
    """Read the evidence that the fold of a run's reports begins with.

    Returns:
        The evidence, and the id of the last report that it holds; of no report, and 0, if there is
        no base, so that all reports are there.

    Raises:
        BaseLost: The base was written by other code, with another key, or is damaged.
    """
    if base is None:
        return evidence_of(rollout), 0
    if base.shape != kept_objects.SHAPE:
        raise BaseLost("it was written by a release that keeps evidence in another form")
    if key is None:
        raise BaseLost("no process without a token can read it")
    try:
        evidence = kept_objects.load(base.payload, key, RunEvidence)
    except Unusable as error:
        raise BaseLost(str(error)) from error
    if evidence.spec != rollout.spec or evidence.run != rollout.record.run:
        raise BaseLost("it is of another run")
    return evidence, base.position


def _find(store: Store, key: bytes | None, name: str, kind: type[T]) -> tuple[T, int] | None:
    if key is None:
        return None
    checkpoint = store.look(lambda connection: checkpoint_table.find(connection, name))
    if checkpoint is None or checkpoint.version != kept_objects.VERSION:
        return None
    try:
        return kept_objects.load(checkpoint.payload, key, kind), checkpoint.position
    except Unusable as error:
        log.warning("checkpoint_unusable", extra={"checkpoint": name, "detail": str(error)})
        return None
