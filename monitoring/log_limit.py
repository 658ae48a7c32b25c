"""Limits a log line that repeats to one a minute, and counts those that were left out. Pure."""

from collections.abc import Callable

SECONDS = 60.0
"""Least time between two lines of the same fault."""


class LogLimit:
    """The lines of one fault that may go on for long.

    Args:
        now: Monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._logged_at: float | None = None
        self._left_out = 0

    def take(self) -> int | None:
        """Take note that the fault was met again.

        Returns:
            None if no line is to be written, else the number of those that were left out before it.
        """
        now = self._now()
        if self._logged_at is not None and now - self._logged_at < SECONDS:
            self._left_out += 1
            return None
        left_out, self._left_out, self._logged_at = self._left_out, 0, now
        return left_out

    def end(self) -> bool:
        """Take note that the fault is over: the next one is logged at once.

        Returns:
            Whether there was one.
        """
        was_there = self._logged_at is not None
        self._logged_at, self._left_out = None, 0
        return was_there
