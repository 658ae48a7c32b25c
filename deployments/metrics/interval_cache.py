"""Cache of confidence intervals, for readers that ask every second.

Both bounds of one stream take milliseconds to compute, and depend on its observations alone. So a
stream's interval is computed anew only after new observations. A thread does it, and rests between
two streams for as long as it worked, so that the folding of reports gets on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from penumbra.monitoring.stats.guard import StreamView

log = logging.getLogger(__name__)

Name = tuple[str, ...]
"""Name of a stream, unique among all streams."""
Interval = tuple[float, float]
"""Lower and upper bound."""


@dataclass(frozen=True, slots=True)
class _Known:
    bins: Mapping[int, int]
    interval: Interval


def interval_of(stream: StreamView) -> Interval:
    """Computes both bounds; takes milliseconds."""
    return stream.lower, stream.upper


class IntervalCache:
    """Caches the intervals of many streams.

    Args:
        compute: Computes both bounds of a stream; called in a thread.
        monotonic: Clock, seconds.
    """

    def __init__(
        self,
        compute: Callable[[StreamView], Interval] = interval_of,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compute = compute
        self._monotonic = monotonic
        self._known: dict[Name, _Known] = {}
        self._wanted: dict[Name, StreamView] = {}
        """Streams whose interval is out of date, the one that waits longest first."""
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether wanted intervals are still to be computed."""
        return self._worker is not None and not self._worker.done()

    async def refresh(self, streams: Mapping[Name, StreamView], seconds: float) -> None:
        """Brings intervals up to date for a limited time; the rest follows in the background.

        Args:
            streams: All streams of interest; the others are forgotten.
            seconds: Longest time to wait.
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

    def get(self, name: Name) -> Interval | None:
        """Returns the last known interval of a stream; None if there is none yet."""
        known = self._known.get(name)
        return None if known is None else known.interval

    async def close(self) -> None:
        """Stops the computation."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait((self._worker,))

    async def _work(self) -> None:
        try:
            while self._wanted:
                name = next(iter(self._wanted))
                stream = self._wanted.pop(name)
                began = self._monotonic()
                interval = await asyncio.to_thread(self._compute, stream)
                self._known[name] = _Known(stream.bins, interval)
                again = self._wanted.get(name)
                if again is not None and again.bins == stream.bins:
                    del self._wanted[name]  # wanted again, unchanged, while it was computed
                await asyncio.sleep(self._monotonic() - began)
        except Exception:
            # The task's edge: the intervals known so far stay, and the next scrape begins again.
            log.exception("intervals_not_worked_out")

    def _forget_others(self, names: Collection[Name]) -> None:
        self._known = {name: known for name, known in self._known.items() if name in names}
        self._wanted = {name: stream for name, stream in self._wanted.items() if name in names}
