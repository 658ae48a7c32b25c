"""The database of a simulated installation: real SQLite, whose answers are late, lost or refused.

What a process asks is done at one instant of virtual time, by the store's shipped code. Before and
after it the simulated network may take long, or never answer.
"""

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa

from penumbra.deployments.control import controller
from penumbra.deployments.control.store_thread import StoreThread, _done
from penumbra.deployments.errors import StoreAway, StoreInDoubt
from penumbra.deployments.store import commits, fencing
from penumbra.deployments.store.attempt import begin_commit
from tests.support.simulated.timeline import Loop, Timeline

LATENCY_SECONDS = 0.002
_MOST_COPIES = 40
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_renew = fencing.renew
_EPOCH_SECONDS = 1_790_000_000.0


@dataclass
class Line:
    """The connection of one control process to the database."""

    loop: Loop
    is_silent: bool = False
    """Nothing comes back, and nothing fails."""
    is_cut: bool = False
    """Every attempt fails at once."""
    loses_answers: int = 0
    """So many commits happen, and their answer is lost."""


@dataclass
class Database:
    """One SQLite file on the timeline's clock."""

    timeline: Timeline
    file: Path
    clock_offset: float = 0.0
    """Steps of the database's clock, seconds."""
    is_full: bool = False
    """Whether no commit finds room."""
    renewed_at: float = 0.0
    """When a leader last renewed the right to write, on the timeline."""
    copies: list[tuple[float, dict[str, list[Any]]]] = field(default_factory=list)
    """(time, table -> rows), oldest first."""

    @property
    def url(self) -> str:
        """SQLAlchemy URL."""
        return f"sqlite:///{self.file}"

    def opened_by(self, line: Line) -> AbstractContextManager[None]:
        """Give the store threads that are made within this block a process's connection."""

        def make(name: str) -> SimulatedThread:
            del name
            return SimulatedThread(self, line)

        return mock.patch.object(controller, "StoreThread", make)

    def note_copy(self) -> None:
        """Keep a copy, as a backup does."""
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            names = [name for (name,) in connection.execute(_TABLES)]
            query = "SELECT * FROM {}".format
            tables = {name: connection.execute(query(name)).fetchall() for name in names}
        self.copies.append((self.timeline.now, tables))
        del self.copies[:-_MOST_COPIES]

    def restore(self, seconds: float) -> float | None:
        """Go back to the newest copy of so long ago; returns its time, or None if there is none."""
        wanted = self.timeline.now - seconds
        older = [copy for copy in self.copies if copy[0] <= wanted]
        if not older:
            return None
        at, tables = older[-1]
        with contextlib.closing(sqlite3.connect(self.file)) as connection, connection:
            for name, rows in tables.items():
                connection.execute(f"DELETE FROM {name}")  # noqa: S608
                if rows:
                    marks = ", ".join("?" * len(rows[0]))
                    connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)  # noqa: S608
        return at

    def now(self) -> float:
        """Its clock, Unix seconds."""
        return _EPOCH_SECONDS + self.timeline.now + self.clock_offset


class _Jobs:
    """The queue of a simulated store thread."""

    def __init__(self, thread: "SimulatedThread") -> None:
        self._thread = thread

    def put(self, job: Any) -> None:
        self._thread.take(job)


class SimulatedThread(StoreThread):
    """The shipped store thread, whose work is done at one instant of its process's loop."""

    def __init__(self, database: Database, line: Line) -> None:
        self._now = line.loop.time
        self._jobs = _Jobs(self)  # type: ignore[assignment]
        self._current = self._late = None
        self._began_at = self._now()
        self._database, self._line = database, line
        self._waiting: deque[Any] = deque()
        self._is_working = False

    def take(self, job: Any) -> None:
        """Queue a job; None ends the thread."""
        if job is None:
            return
        self._waiting.append(job)
        if not self._is_working:
            self._is_working = True
            self._line.loop.create_task(self._work_on())

    def close(self, seconds: float) -> None:
        """End it."""
        del seconds

    async def _work_on(self) -> None:
        while self._waiting:
            job = self._waiting.popleft()
            if job.attempt.is_given_up or not job.done.set_running_or_notify_cancel():
                continue
            self._began_at, self._current = self._now(), job
            await asyncio.sleep(LATENCY_SECONDS)
            await self._while_silent()
            tell = self._do(job)
            await self._while_silent()
            self._current = None
            tell()
        self._is_working = False

    async def _while_silent(self) -> None:
        while self._line.is_silent:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    def _do(self, job: Any) -> Callable[[], None]:
        if self._line.is_cut:
            return lambda: job.done.set_exception(StoreAway("the store cannot be read: no route"))
        job.attempt.work_here()
        tell = _done(job)
        if self._line.loses_answers and job.attempt._is_committing:
            self._line.loses_answers -= 1
            lost = StoreInDoubt("the store's answer to a commit is lost")
            return lambda: job.done.set_exception(lost)
        return tell


class simulated_clock(AbstractContextManager[None]):  # noqa: N801 - used as a function
    """Within this block SQLite's clock, and the room on its disk, are a database's of here."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._patches = (
            mock.patch.dict(fencing._NOW, {"sqlite": "simulated_now()"}),
            mock.patch.object(commits, "begin_commit", self._begin_commit),
            mock.patch.object(fencing, "renew", self._renew),
        )

    def __enter__(self) -> None:
        sa.event.listen(sa.Engine, "connect", self._connected)
        for patch in self._patches:
            patch.start()

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()
        sa.event.remove(sa.Engine, "connect", self._connected)

    def _connected(self, connection: Any, record: object) -> None:
        del record
        connection.create_function("simulated_now", 0, self._database.now)
        connection.execute("PRAGMA synchronous=OFF")

    def _renew(self, *arguments: Any) -> None:
        _renew(*arguments)
        self._database.renewed_at = self._database.timeline.now

    def _begin_commit(self) -> None:
        begin_commit()
        if self._database.is_full:
            error = sqlite3.OperationalError("database or disk is full")
            raise sa.exc.OperationalError("COMMIT", None, error)
