"""The queue of mirrored requests: bounded in items, bytes and age. No I/O.

Whether a request is shed never depends on its own length or outcome. When the queue is full the
newest is shed, whatever its size, and only what waits already makes the queue full. (A limit on
`waiting + own size` would shed the long ones first, and a slice would look better or worse than it
is.) The price is at most one frame over the limit. The oldest go first, and are shed by age alone.
"""

from collections import deque
from collections.abc import Callable

from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.shadow.settings import QueueLimits

_Lane = deque[tuple[MirrorFrame, int]]


class MirrorQueue:
    """First in, first out for each model; the models take turns.

    Args:
        limits: Limits of all models together.
        on_shed: Called with each request that is shed here.
        now: CLOCK_MONOTONIC, by which gateways stamp too.
    """

    def __init__(
        self,
        limits: QueueLimits,
        on_shed: Callable[[MirrorFrame, ShedReason], None],
        now: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._on_shed = on_shed
        self._now = now
        self._lanes: dict[str, _Lane] = {}
        self._obstacles: dict[str, ShedReason] = {}
        self.items = 0
        self.bytes = 0

    def put(self, mirrored: MirrorFrame, size_bytes: int) -> bool:
        """Queue a request, and return whether it was taken."""
        if self.items >= self._limits.items:
            self._on_shed(mirrored, ShedReason.QUEUE_ITEMS)
            return False
        if self.bytes >= self._limits.bytes:
            self._on_shed(mirrored, ShedReason.QUEUE_BYTES)
            return False
        self._lanes.setdefault(mirrored.model, deque()).append((mirrored, size_bytes))
        self.items += 1
        self.bytes += size_bytes
        return True

    def take(self, obstacle: Callable[[str], ShedReason | None]) -> MirrorFrame | None:
        """Take the oldest request of the first model in turn that may start; None if none may.

        Args:
            obstacle: Model -> the reason why its requests may not start now; None if they may.
        """
        self.shed_old()
        for model in list(self._lanes):
            blocked = obstacle(model)
            if blocked is not None:
                self._obstacles[model] = blocked
                continue
            # The model goes to the back of the turn; a lane without requests is dropped.
            lane = self._lanes.pop(model)
            self._obstacles.pop(model, None)
            mirrored = self._pop(lane)
            if lane:
                self._lanes[model] = lane
            return mirrored
        return None

    def shed_old(self) -> None:
        """Shed the requests that are older than `limits.age_seconds`."""
        oldest = self._now() - self._limits.age_seconds
        for model, lane in list(self._lanes.items()):
            # The reason why the queue did not move; without one, all places were taken.
            reason = self._obstacles.get(model, ShedReason.AGE)
            while lane and lane[0][0].answered_at < oldest:
                self._on_shed(self._pop(lane), reason)
            if not lane:
                del self._lanes[model]
                self._obstacles.pop(model, None)

    def clear(self, reason: ShedReason) -> None:
        """Shed everything."""
        for lane in self._lanes.values():
            while lane:
                self._on_shed(self._pop(lane), reason)
        self._lanes.clear()
        self._obstacles.clear()

    def _pop(self, lane: _Lane) -> MirrorFrame:
        mirrored, size_bytes = lane.popleft()
        self.items -= 1
        self.bytes -= size_bytes
        return mirrored
