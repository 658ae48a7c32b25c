"""Turns: changes are made one at a time, each with a deadline for all that it asks the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from penumbra.deployments.errors import StoreUnavailable

CHANGE_SECONDS = 5.0
"""Longest time in which a change is made or refused: its turn, and all that it asks the store."""
READ_SECONDS = 10.0
"""Longest wait for a read of the history."""
PATIENT_SECONDS = 300.0
"""Longest time for what no client waits for: to read the whole history, or fold the evidence."""


@dataclass(slots=True)
class _Turn:
    ends_at: float
    """The event loop's seconds."""
    is_over: bool = False


_turn: ContextVar[_Turn | None] = ContextVar("turn", default=None)
"""The turn under way; tasks that were begun in it have it too, also after it is over."""


class Turns:
    """Turns of one control process."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def take(self, seconds: float) -> AsyncIterator[None]:
        """Wait for a turn and hold it.

        Args:
            seconds: Longest time for the wait, and for what is asked of the store within the turn.

        Raises:
            StoreUnavailable: Other turns took too long.
        """
        ends_at = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._lock.acquire()
        except TimeoutError as error:
            raise StoreUnavailable(
                f"the store was busy with other changes for {seconds:.1f} s; nothing was changed"
            ) from error
        turn = _Turn(ends_at)
        token = _turn.set(turn)
        try:
            yield
        finally:
            turn.is_over = True
            _turn.reset(token)
            self._lock.release()


def seconds_left() -> float:
    """The rest of the turn under way, in seconds; `CHANGE_SECONDS` outside of one."""
    turn = _turn.get()
    if turn is None or turn.is_over:
        return CHANGE_SECONDS
    return turn.ends_at - asyncio.get_running_loop().time()
