"""Caches confidence bounds for readers that ask every second.

A thread computes changed ones; the others are kept as long as they hold.


Both ends of one stream take milliseconds, and depend on its observations alone. So each stream is
worked out anew only when it has got some; and between two the thread rests for as long as it
worked, so that whoever folds reports gets on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from penumbra.monitoring.stats.guard import StreamView

log = logging.getLogger(__name__)

Name = tuple[str, ...]
"""Of a stream: unique among all that are asked for."""
Interval = tuple[float, float]
"""Lower and upper end."""


@dataclass(frozen=True, slots=True)
class _Known:
    bins: Mapping[int, int]
    interval: Interval


def interval_of(stream: StreamView) -> Interval:
    """Both ends; takes milliseconds."""
    return stream.lower, stream.upper


class IntervalCache:
    """The intervals of many streams.

    Args:
        work_out: Both ends of a stream; called in a thread.
        monotonic: Clock, seconds.
    """

    def __init__(
        self,
        work_out: Callable[[StreamView], Interval] = interval_of,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work_out = work_out
        self._monotonic = monotonic
        self._known: dict[Name, _Known] = {}
        self._wanted: dict[Name, StreamView] = {}
        """Out of date; who waits longest comes first."""
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether ends that were asked for are still to be worked out."""
        return self._worker is not None and not self._worker.done()

    async def settle(self, streams: Mapping[Name, StreamView], seconds: float) -> None:
        """Work out what is out of date, for so long at most; what is left, in the background.

        Args:
            streams: All that are of interest now; others are forgotten.
            seconds: To wait.
        """
        self._forget_others(streams)
        for name, stream in streams.items():
            known = self._known.get(name)
            if known is None or known.bins != stream.bins:
                self._wanted[name] = stream
            else:
                self._wanted.pop(name, None)
        if not self._wanted:
            return
        if self._worker is None or not self.is_behind:
            self._worker = asyncio.create_task(self._work())
        await asyncio.wait((self._worker,), timeout=seconds)

    def of(self, name: Name) -> Interval | None:
        """The last known ends of a stream; None: there are none yet."""
        known = self._known.get(name)
        return None if known is None else known.interval

    async def close(self) -> None:
        """Leave off."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait((self._worker,))

    async def _work(self) -> None:
        try:
            while self._wanted:
                name = next(iter(self._wanted))
                stream = self._wanted.pop(name)
                began = self._monotonic()
                interval = await asyncio.to_thread(self._work_out, stream)
                self._known[name] = _Known(stream.bins, interval)
                again = self._wanted.get(name)
                if again is not None and again.bins == stream.bins:
                    del self._wanted[name]  # asked for once more while it was under way
                await asyncio.sleep(self._monotonic() - began)
        except Exception:
            # The task's edge: the ends known so far stay, and the next scrape begins again.
            log.exception("intervals_not_worked_out")

    def _forget_others(self, names: Collection[Name]) -> None:
        self._known = {name: one for name, one in self._known.items() if name in names}
        self._wanted = {name: one for name, one in self._wanted.items() if name in names}
