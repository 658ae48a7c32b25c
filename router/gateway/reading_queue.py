"""Large bodies that are being read, one step of one body in each turn of the event loop.

However many large bodies come at once, everything else waits for one step at a time.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class ReadingQueue:
    """The bodies being read in one process, in turns."""

    __slots__ = ("_is_running", "_steps")

    def __init__(self) -> None:
        self._steps: deque[Callable[[], bool]] = deque()
        self._is_running = False

    def add(self, step: Callable[[], bool]) -> None:
        """Call `step` in coming turns of the event loop until it returns True; it never raises."""
        self._steps.append(step)
        if not self._is_running:
            self._is_running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        step = self._steps.popleft()
        if not step():
            self._steps.append(step)
        self._is_running = bool(self._steps)
        if self._is_running:
            asyncio.get_running_loop().call_soon(self._run)
