"""Compaction of old reports: a page of rows at a time becomes a segment, and old segments go.

Rows are read and compressed while changes go on; only the exchange is under the lock.

Reading order: Compaction.work.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.store import checkpoint_table, segment_tables

AFTER_SECONDS = 3600.0
"""Age at which reports are compacted: explanations and restarts mostly read younger ones."""
PAGE = 1000
"""Reports of one segment."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Days for which what is stored."""

    feedback_days: int = 30
    """Users' judgements."""
    report_days: int = 30
    """Reports that a checkpoint holds."""


DEFAULT_RETENTION = Retention()


class Compaction:
    """Compacts the reports of one store, a page at each call.

    Args:
        controller: Holds the state and the store.
        lifetime: Time for which reports are kept behind a checkpoint.
        now: Wall clock.
    """

    def __init__(
        self, controller: Controller, lifetime: timedelta, now: Callable[[], datetime]
    ) -> None:
        self._controller = controller
        self._lifetime = lifetime
        self._now = now
        self._turns = itertools.count()

    async def work(self) -> None:
        """Compact a page of one run, and prune one of its segments; never within `writing`.

        Raises:
            NotLeader: Another process leads.
            StoreUnavailable: The store cannot be read or written.
        """
        state = self._controller.state
        runs = [
            rollout.record.run
            for rollout in state.rollouts.values()
            if rollout.record.phase is not Phase.OFF
        ]
        if not runs:
            return
        run, now = runs[next(self._turns) % len(runs)], self._now()
        before = now - timedelta(seconds=AFTER_SECONDS)
        page = await self._controller.read(
            lambda store: store.look(lambda c: segment_tables.page(c, run, before, PAGE))
        )
        packed = None if page is None else await asyncio.to_thread(segment_tables.pack, page)

        def exchange(connection: sa.Connection) -> None:
            if page is not None and packed is not None:
                segment_tables.replace(connection, page, packed)
            kept = checkpoint_table.position(connection, run)
            segment_tables.prune(connection, run, now - self._lifetime, kept)

        async with self._controller.writing():
            await self._controller.on_store_thread(lambda store: store.write(exchange))
