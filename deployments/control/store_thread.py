"""A thread for the store's work, whose callers wait only so long.

One piece of work after another, so that a read after a write that failed sees all of that write, or
nothing. A piece that outlives its caller's wait is left to end by itself: it commits nothing any
more (`penumbra.deployments.store.attempt`), and what is asked for meanwhile fails at once.
"""

import asyncio
import functools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from penumbra.deployments.errors import StoreAway, StoreInDoubt
from penumbra.deployments.store.attempt import Attempt

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    work: Callable[[], T]
    attempt: Attempt
    done: "Future[T]"


class StoreThread:
    """One thread.

    Args:
        name: Its name.
        now: Monotonic clock, seconds; any thread may call it.
    """

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._current: _Job[Any] | None = None
        self._late: _Job[Any] | None = None
        """The last work that did not end in time."""
        self._began_at = now()
        # A daemon: a store that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def stuck_seconds(self) -> float:
        """Age of the work under way if it has outlived its caller's wait, else 0."""
        job = self._current
        return self._now() - self._began_at if job is not None and job is self._late else 0.0

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Run a function on the thread, after those that were given to it before.

        Args:
            work: The function.
            seconds: Longest wait for it; 0 or less: it is not begun.

        Raises:
            StoreAway: It did not end in time, or was not begun; nothing is changed by it.
            StoreInDoubt: It did not end in time, and may change something.
            DeploymentsError: What the function raises.
        """
        stuck = self.stuck_seconds
        if stuck:
            raise StoreAway(f"the store has not answered for {stuck:.1f} s; nothing was changed")
        job = _Job(work, Attempt(), Future())
        self._jobs.put(job)
        answer = asyncio.wrap_future(job.done)
        try:
            await asyncio.wait({answer}, timeout=max(0.0, seconds))
        finally:
            # Also if the caller was cancelled.
            is_certain = answer.done() or job.attempt.give_up()
            if not answer.done():
                answer.cancel()
        if not answer.cancelled():
            return answer.result()
        self._late = job
        if is_certain:
            raise StoreAway(f"the store did not answer within {seconds:.1f} s; nothing was changed")
        raise StoreInDoubt(f"the store did not answer a commit within {seconds:.1f} s")

    def close(self, seconds: float) -> None:
        """End the thread; wait at most `seconds` for the work under way."""
        self._jobs.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.attempt.is_given_up or not job.done.set_running_or_notify_cancel():
                continue
            self._began_at, self._current = self._now(), job
            job.attempt.work_here()
            tell = _done(job)
            self._current = None
            tell()


def _done(job: _Job[T]) -> Callable[[], None]:
    """Do the work, and return the function that tells its caller."""
    try:
        result = job.work()
    except BaseException as error:  # noqa: BLE001 -- its caller raises it
        return functools.partial(job.done.set_exception, error)
    return functools.partial(job.done.set_result, result)
