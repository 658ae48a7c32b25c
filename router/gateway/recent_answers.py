"""The answers of the last minute in one gateway process, read from its counters.

Nothing is added to a request: once a second the counters are copied, and the difference to the copy
of a minute ago is what the minute brought.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from penumbra.monitoring.answers import AnswerCount
from penumbra.monitoring.metrics.cells import Counter, Family

WINDOW_SECONDS = 60.0
PERIOD_SECONDS = 1.0
"""Interval between two copies: how exact the minute is."""


class RecentAnswers:
    """The answers of the last `WINDOW_SECONDS`.

    Args:
        answers: The counters `penumbra_answers_total`.
        now: Monotonic clock, seconds.
    """

    def __init__(self, answers: Family[Counter], now: Callable[[], float]) -> None:
        self._answers = answers
        self._now = now
        self._copies: deque[tuple[float, dict[tuple[str, ...], int]]] = deque()

    async def run(self) -> None:
        """Copy the counters every `PERIOD_SECONDS`, until cancelled."""
        while True:
            self.copy()
            await asyncio.sleep(PERIOD_SECONDS)

    def copy(self) -> None:
        """Copy the counters, and forget the copies that are older than the last minute needs."""
        now = self._now()
        values = {labels: cell.value for labels, cell in self._answers.cells.items()}
        self._copies.append((now, values))
        while len(self._copies) > 1 and self._copies[1][0] <= now - WINDOW_SECONDS:
            self._copies.popleft()

    def counts(self) -> tuple[AnswerCount, ...]:
        """The answers since the last copy that is a minute old; zeros are left out."""
        before = self._copies[0][1] if self._copies else {}
        counts = []
        for labels, cell in self._answers.cells.items():
            count = cell.value - before.get(labels, 0)
            if count:
                model, variant, _, code = labels
                counts.append(AnswerCount(model, variant, code, count))
        return tuple(counts)
