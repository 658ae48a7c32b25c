"""Timing of the link to the control process: deadlines, pings and retries."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Deadlines, pings and retries of the link, with the clock and the jitter that they use."""

    open_seconds: float = 2.5
    ping_seconds: float = 2.5
    """Interval of pings to the other end, and the time that an answer may take. Twice that is half
    of a lease by default: a leader that hangs is left for the next one while leases last."""
    first_retry_seconds: float = 0.05
    longest_retry_seconds: float = 2.0
    now: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    """Returns a random number, uniform in [0, 1)."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def retry_seconds(self, failures: int) -> float:
        """Return the pause after so many failures in a row.

        It doubles with each failure up to a limit, times a random factor in [0.5, 1).
        """
        doubled = self.first_retry_seconds * float(2 ** min(failures, 16))
        longest = min(self.longest_retry_seconds, doubled)
        return longest * (0.5 + 0.5 * self.jitter())
