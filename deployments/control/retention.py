"""Retention of compacted reports: those of a running run that are old enough are deleted.

In their place stands a base: the evidence that they and all before them came to, which was written
at that time as a spare one. So the evidence goes on unchanged, and the store does not grow with the
age of a run; only a rollback that lies before the base cannot be computed anew.

Reading order: Retention.work.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.rollouts.record import WATCHED
from penumbra.deployments.store import base_table, segment_tables
from penumbra.deployments.store.store import Store

SPARES = 4
"""Spare bases in the time for which reports are kept."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Lifetimes of stored rows, in days."""

    feedback_days: int = 30
    """Users' judgements."""
    report_days: float = 30.0
    """Reports of a watched run; up to a quarter longer."""


DEFAULT = Lifetimes()


class Retention:
    """Deletes the oldest reports of the watched runs, some at each call.

    Args:
        controller: Holds the state and the store.
        now: Wall clock.
        lifetimes: How long rows are stored.
    """

    def __init__(
        self, controller: Controller, now: Callable[[], datetime], lifetimes: Lifetimes
    ) -> None:
        self._controller = controller
        self._now = now
        self._lifetime = timedelta(days=lifetimes.report_days)
        self._turns = itertools.count()

    @property
    def spare_every(self) -> timedelta:
        """Interval between two spare bases of a run."""
        return self._lifetime / SPARES

    async def work(self) -> None:
        """Delete some reports of one run, if any are old enough; never within `writing`.

        Reports of a run that was rolled back stay: it is explained by them, and has no new ones.

        Raises:
            NotLeader: Another process leads.
            StoreUnavailable: The store cannot be read or written.
        """
        rollouts = self._controller.state.rollouts.values()
        runs = [each.record.run for each in rollouts if each.record.phase in WATCHED]
        if not runs or self._controller.checkpoint_key is None:
            return
        run = runs[next(self._turns) % len(runs)]
        before = self._now() - self._lifetime

        def is_due(connection: sa.Connection) -> bool:
            position = base_table.due(connection, run, before)
            if position is None:
                position = base_table.used_position(connection, run)
            return segment_tables.has_until(connection, run, position)

        def delete(connection: sa.Connection) -> None:
            position = base_table.due(connection, run, before)
            if position is not None:
                base_table.use(connection, run, position)
            segment_tables.drop(connection, run, base_table.used_position(connection, run))

        def look(store: Store) -> bool:
            return store.look(is_due)

        if await self._controller.read(look):
            async with self._controller.writing():
                await self._controller.on_store_thread(lambda store: store.write(delete))
