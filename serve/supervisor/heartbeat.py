"""Heartbeat: finds out that a process has stopped answering, though it has not ended.

A process that was stopped, or that hangs, keeps its ports: clients and the supervisor can connect
to it, and wait. So it is asked over HTTP, again and again, with a deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Times of a heartbeat, in seconds."""

    period_seconds: float = 2.0
    """From one answer to the next question."""
    answer_seconds: float = 5.0
    """Longest wait for an answer; any answer is a sign of life, whatever it says."""
    most_misses: int = 3
    """Questions without an answer, one after another, after which the process counts as hung."""
    lag_seconds: float = 1.0
    """A question that took longer than its wait by this says nothing: then this process itself, or
    the whole machine, stood still."""

    async def await_silence(self, ask: Callable[[], Awaitable[bool]]) -> float:
        """Ask until there are too many misses in a row.

        Args:
            ask: Asks once; returns whether it was answered, and may take any time.

        Returns:
            Seconds since the last answer.
        """
        now = asyncio.get_running_loop().time
        heard_at, misses = now(), 0
        while misses < self.most_misses:
            await asyncio.sleep(self.period_seconds)
            asked_at = now()
            is_answered = await self._ask(ask)
            took = now() - asked_at
            if is_answered:
                heard_at, misses = now(), 0
            elif took > self.answer_seconds + self.lag_seconds:
                misses = 0
            else:
                misses += 1
        return now() - heard_at

    async def _ask(self, ask: Callable[[], Awaitable[bool]]) -> bool:
        try:
            async with asyncio.timeout(self.answer_seconds):
                return await ask()
        except TimeoutError:
            return False


HEARTBEAT = Heartbeat()
"""The heartbeat of all processes of `penumbra up`."""
