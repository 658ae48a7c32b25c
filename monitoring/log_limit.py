"""Limits a log line that repeats to one a minute, and counts those that were left out. Pure."""

from collections.abc import Callable

SECONDS = 60.0
"""Least time between two lines of the same kind."""


class LogLimit:
    """The lines of one fault that may go on for long.

    Args:
        now: Monotonic clock, seconds.
        most_kinds: Kinds that are remembered; with one more all are forgotten.
    """

    def __init__(self, now: Callable[[], float], most_kinds: int = 100) -> None:
        self._now = now
        self._most_kinds = most_kinds
        self._written: dict[str, tuple[float, int]] = {}
        """Kind -> when its last line was written, and the number of lines left out since."""

    def take(self, kind: str = "") -> int | None:
        """Take note that the fault was met again.

        Args:
            kind: Its code or type; each kind has a minute of its own.

        Returns:
            None if no line is to be written, else the number of those that were left out before it.
        """
        now = self._now()
        at, left_out = self._written.get(kind, (now - SECONDS, 0))
        if now - at < SECONDS:
            self._written[kind] = at, left_out + 1
            return None
        if len(self._written) >= self._most_kinds:
            self._written.clear()
        self._written[kind] = now, 0
        return left_out

    def end(self) -> bool:
        """Take note that the fault is over: the next one is logged at once.

        Returns:
            Whether there was one.
        """
        was_there = bool(self._written)
        self._written.clear()
        return was_there
