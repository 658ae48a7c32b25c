"""Ordered results: delivered in the order in which their work was admitted, not finished. Pure.

If they were delivered as they finish, the quick ones would be counted first, and a candidate whose
bad answers are slow would look good for longer than it is.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


class Slot(Generic[ResultT]):
    """The place of one result in the order; closed once, with a result or without one."""

    __slots__ = ("_flush", "is_closed", "result")

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self.is_closed = False
        self.result: ResultT | None = None

    def close(self, result: ResultT | None = None) -> None:
        """Close the slot with its result, or None if there is none. Only the first call counts."""
        if self.is_closed:
            return
        self.is_closed = True
        self.result = result
        self._flush()


class OrderedResults(Generic[ResultT]):
    """Queues of results, one for each key, each first in first out.

    Args:
        deliver: Called with each result when all slots of its key before it are closed.
    """

    def __init__(self, deliver: Callable[[Hashable, ResultT], None]) -> None:
        self._deliver = deliver
        self._queues: dict[Hashable, deque[Slot[ResultT]]] = {}

    @property
    def open_slots(self) -> int:
        """Slots that are not closed, or wait for an earlier one."""
        return sum(map(len, self._queues.values()))

    def open(self, key: Hashable) -> Slot[ResultT]:
        """Open the next slot of a key."""
        slot: Slot[ResultT] = Slot(lambda: self._flush(key))
        self._queues.setdefault(key, deque()).append(slot)
        return slot

    def _flush(self, key: Hashable) -> None:
        queue = self._queues[key]
        while queue and queue[0].is_closed:
            slot = queue.popleft()
            if slot.result is not None:
                self._deliver(key, slot.result)
        if not queue:
            self._queues.pop(key, None)
