"""Compaction of old reports: a page of rows at a time becomes a segment.

Rows are read and compressed while changes go on; only the exchange is under the lock.

Reading order: Compaction.work.
"""

import asyncio
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.rollouts.record import open_runs
from penumbra.deployments.store import segment_tables

AFTER_SECONDS = 3600.0
"""Age at which reports are compacted: explanations and restarts mostly read younger ones."""
PAGE = 1000
"""Reports of one segment."""


class Compaction:
    """Compacts the reports of one store, a page at each call.

    Args:
        controller: Holds the state and the store.
        now: Wall clock.
    """

    def __init__(self, controller: Controller, now: Callable[[], datetime]) -> None:
        self._controller = controller
        self._now = now
        self._turns = itertools.count()

    async def work(self) -> None:
        """Compact a page of one run; never within `writing`.

        Raises:
            NotLeader: Another process leads.
            StoreUnavailable: The store cannot be read or written.
        """
        runs = open_runs(self._controller.state.rollouts.values())
        if not runs:
            return
        run = runs[next(self._turns) % len(runs)]
        before = self._now() - timedelta(seconds=AFTER_SECONDS)
        page = await self._controller.read(
            lambda store: store.look(lambda c: segment_tables.page(c, run, before, PAGE))
        )
        if page is None:
            return
        packed = await asyncio.to_thread(segment_tables.pack, page)
        async with self._controller.writing():
            await self._controller.on_store_thread(
                lambda store: store.write(lambda c: segment_tables.replace(c, page, packed))
            )
