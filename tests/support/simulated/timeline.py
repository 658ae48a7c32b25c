"""Virtual time, and an event loop of its own for each simulated process.

One thread steps all loops. The next instant is the earliest at which a loop that is not stopped has
something to do; which of several loops goes first is drawn. So a stopped process (SIGSTOP) is a
loop that is not stepped, a killed one is a loop that is never stepped again, and an hour takes no
longer than what is done in it.
"""

import asyncio
import contextlib
import random
from asyncio import events
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

MOST_STEPS = 400_000
"""Steps of one simulation: more of them mean that something turns without end."""


class _NoSelector:
    """Selects nothing: simulated processes have no sockets."""

    def select(self, timeout: float | None) -> list[Any]:
        del timeout
        return []


class Loop(BaseEventLoop):
    """Event loop of one simulated process."""

    def __init__(self, timeline: "Timeline", name: str) -> None:
        super().__init__()
        self.name = name
        self.is_stopped = False
        self.errors: list[dict[str, Any]] = []
        self._tasks: list[tuple[asyncio.Task[Any], Context]] = []
        self._selector = _NoSelector()
        self._timeline = timeline
        self.set_exception_handler(lambda _, context: self.errors.append(context))
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Now, in virtual seconds."""
        return self._timeline.now

    @property
    def due(self) -> float:
        """The earliest time at which it has something to do."""
        if self._ready:  # type: ignore[attr-defined]
            return self._timeline.now
        scheduled = self._scheduled  # type: ignore[attr-defined]
        return float(scheduled[0].when()) if scheduled else float("inf")

    def step(self) -> None:
        """Run what is due now, once."""
        events._set_running_loop(self)
        try:
            self._run_once()  # type: ignore[attr-defined]
        finally:
            events._set_running_loop(None)

    def start(self, work: Any) -> asyncio.Task[Any]:
        """Begin a task, from outside of the loop or within it."""
        return self.create_task(work)

    def end(self) -> None:
        """Close what is still under way, when nothing can come of it any more."""
        for task, context in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(BaseException):
                    context.run(task.get_coro().close)  # type: ignore[union-attr]
        self._tasks.clear()
        self.close()

    def _make_task(self, loop: Any, work: Any, **more: Any) -> asyncio.Task[Any]:
        # Kept, so that those of a killed process are not closed, with all their last words, when
        # the garbage collector comes.
        context = more.pop("context", None) or copy_context()
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **more)
        self._tasks.append((task, context))
        return task

    def _check_closed(self) -> None:
        return

    def _process_events(self, event_list: list[Any]) -> None:
        del event_list

    def _write_to_self(self) -> None:
        return


class Timeline:
    """The clock, and the loops that it drives.

    Args:
        seed: Decides which of several loops goes first.
    """

    def __init__(self, seed: int) -> None:
        self.now = 1000.0
        self.steps = 0
        self.after_step: Callable[[], None] = lambda: None
        """Called after each step."""
        self._loops: list[Loop] = []
        self._ended: list[Loop] = []
        self._random = random.Random(seed)

    def loop(self, name: str) -> Loop:
        """Make the loop of a process that starts."""
        loop = Loop(self, name)
        self._loops.append(loop)
        return loop

    def forget(self, loop: Loop) -> None:
        """Never step a loop again: its process was killed."""
        self._loops.remove(loop)
        self._ended.append(loop)
        loop._ready.clear()  # type: ignore[attr-defined]
        loop._scheduled.clear()  # type: ignore[attr-defined]

    def end(self) -> None:
        """End all loops."""
        for loop in (*self._loops, *self._ended):
            loop.end()

    def run_until(self, until: float) -> None:
        """Step all loops until a time."""
        while True:
            running = [loop for loop in self._loops if not loop.is_stopped]
            earliest = min((loop.due for loop in running), default=float("inf"))
            if earliest > until:
                self.now = max(self.now, until)
                return
            self.now = max(self.now, earliest)
            self._random.choice([loop for loop in running if loop.due <= self.now]).step()
            self.steps += 1
            assert self.steps < MOST_STEPS, f"something turns without end at {self.now:.3f} s"
            self.after_step()
