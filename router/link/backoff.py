"""How patient the link to the control process is."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """How patient the link is; and its clock and dice, so that a test can bring its own."""

    open_seconds: float = 5.0
    ping_seconds: float = 5.0
    """How often the other end is asked for a sign of life, and how long that may take."""
    first_retry_seconds: float = 0.05
    longest_retry_seconds: float = 2.0
    now: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    """Uniform in [0, 1)."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def retry_seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row: doubling, with full jitter."""
        doubled = self.first_retry_seconds * float(2 ** min(failures, 16))
        longest = min(self.longest_retry_seconds, doubled)
        return longest * (0.5 + 0.5 * self.jitter())
