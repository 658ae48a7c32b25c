"""Checkpoints of the state and of each run's evidence.

A start, and the way back after an error, read them and the rows after them, however long the
history is.

A checkpoint is never the only copy of anything: one that is missing, damaged or of another version
of the code costs the time of a whole fold. Now and then one of a run is written a second time, as a
spare base (`retention.py`).

Reading order: Checkpoints.write_due; kept_folds.py.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.kept_folds import STATE
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.evidence import kept_objects
from penumbra.deployments.evidence.judge import EvidenceBook
from penumbra.deployments.rollouts.record import open_runs
from penumbra.deployments.store import base_table, checkpoint_table, observation_tables
from penumbra.deployments.store.base_table import Base
from penumbra.deployments.store.checkpoint_table import Checkpoint

log = logging.getLogger(__name__)

SECONDS = 60.0
"""Interval between two checkpoints of the same thing."""
EVENTS = 100
"""Events after which the state is worth a checkpoint."""


class Checkpoints:
    """Writes the checkpoints of a leading process, the one that is due longest at each call.

    Args:
        controller: Holds the state and the store.
        book: Holds the evidence.
        catch_up: Makes the evidence whole again, if a commit failed; called under the lock.
        now: Wall clock.
        spare_every: Interval between two spare bases of a run.
    """

    def __init__(
        self,
        controller: Controller,
        book: EvidenceBook,
        catch_up: Callable[[], Awaitable[None]],
        now: Callable[[], datetime],
        spare_every: timedelta,
    ) -> None:
        self._controller = controller
        self._book = book
        self._catch_up = catch_up
        self._now = now
        self._spare_every = spare_every
        self._written: dict[str, tuple[int, datetime]] = {}
        """Name -> position of the last checkpoint, and when it was looked at."""
        self._is_well = True

    async def write_due(self) -> None:
        """Write one checkpoint, if one is due; never within `Controller.writing`.

        Only the copy is made under the lock: a fold must not go on meanwhile. A checkpoint that
        cannot be stored is logged, and tried again when it is due again.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        key, name = self._controller.checkpoint_key, self._due()
        if key is None or name is None:
            return
        async with self._controller.writing():
            await self._catch_up()
            position, written = await self._copy(name)
        self._written[name] = position, self._now()
        if written is not None:
            await self._store(name, position, written, key)

    def _due(self) -> str | None:
        names = self._names()
        self._written = {name: told for name, told in self._written.items() if name in names}
        for name in names:
            if name not in self._written:
                return name
        oldest = min(names, key=lambda name: self._written[name][1])
        # Also if the clock was set back: it would not be due until the clock had caught up.
        is_due = abs(self._now() - self._written[oldest][1]) >= timedelta(seconds=SECONDS)
        return oldest if is_due else None

    def _names(self) -> list[str]:
        return [STATE, *open_runs(self._controller.state.rollouts.values())]

    async def _copy(self, name: str) -> tuple[int, bytes | None]:
        """Return the position, and the copy; None if the last checkpoint is as good."""
        controller = self._controller
        known = self._written[name][0] if name in self._written else 0
        if name == STATE:
            epoch = controller.state.epoch
            if epoch < known + EVENTS:
                return known, None
            return epoch, kept_objects.dump(controller.kept_state)
        position = await controller.on_store_thread(
            lambda store: store.look(observation_tables.last_report)
        )
        rollouts = controller.state.rollouts.values()
        rollout = next((each for each in rollouts if each.record.run == name), None)
        if rollout is None or position == known:
            return position, None
        return position, kept_objects.dump(self._book.evidence(rollout))

    async def _store(self, name: str, position: int, written: bytes, key: bytes) -> None:
        packed = await asyncio.to_thread(kept_objects.pack, written, key)
        checkpoint = Checkpoint(name, position, kept_objects.VERSION, packed)
        names, at = self._names(), self._now()

        def store(connection: sa.Connection) -> None:
            checkpoint_table.put(connection, checkpoint, at)
            checkpoint_table.keep_only(connection, names)
            if name != STATE:
                self._spare(connection, checkpoint, at)

        try:
            await self._controller.on_store_thread(lambda found: found.write(store))
        except StoreUnavailable as error:
            # It is no more than time at the next start; the tick tells if nothing can be written.
            if self._is_well:
                log.warning("checkpoint_not_stored", extra={"detail": error.message})
            self._is_well = False
        else:
            self._is_well = True

    def _spare(self, connection: sa.Connection, checkpoint: Checkpoint, at: datetime) -> None:
        newest = base_table.newest(connection, checkpoint.name)
        if newest is not None and newest > at:  # the clock was ahead, and was set right
            base_table.redate(connection, checkpoint.name, at)
            newest = at
        if newest is None or at - newest >= self._spare_every:
            shape, payload = kept_objects.SHAPE, checkpoint.payload
            base = Base(checkpoint.name, checkpoint.position, shape, at, payload)
            base_table.add(connection, base)
