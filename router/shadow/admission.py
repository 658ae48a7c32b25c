"""Admission of comparisons: whether the engines have room, and whether the budget is left. Pure.

Both answers depend on the load of the engines and on the time spent, never on the next request:
within a slice every mirrored request has the same chance, however long it is and however it ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from penumbra.router.shadow.settings import Budget, HeadroomSettings

_RUNNING = "num_requests_running"
_WAITING = "num_requests_waiting"
_KV = "kv_cache_usage_perc"
_PREFIXES = ("vllm:", "vllm_", "ray_vllm_", "ray_vllm:")
"""vLLM's own exposition, and Ray's of the same gauges."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """Load of the engines behind one URL."""

    running: float
    """Requests in the batch."""
    waiting: float
    """Requests that wait for a place in the batch."""
    kv_ratio: float
    """Share of the KV cache in use, of the fullest engine, in [0, 1]."""


def read_gauges(text: str) -> Gauges | None:
    """Read the gauges from a page of Prometheus metrics; None if it lacks the first two."""
    sums: dict[str, float] = {}
    fullest = 0.0
    for line in text.splitlines():
        name, value = _sample(line)
        if name in (_RUNNING, _WAITING):
            sums[name] = sums.get(name, 0.0) + value
        elif name == _KV:
            fullest = max(fullest, value)
    if len(sums) < 2:
        return None
    return Gauges(sums[_RUNNING], sums[_WAITING], fullest)


def _sample(line: str) -> tuple[str, float]:
    if line.startswith("#"):
        return "", 0.0
    for prefix in _PREFIXES:
        if line.startswith(prefix):
            name = line[len(prefix) :].partition("{")[0].partition(" ")[0]
            if name not in (_RUNNING, _WAITING, _KV):
                return "", 0.0
            try:
                return name, float(line.rpartition(" ")[2])
            except ValueError:
                return "", 0.0
    return "", 0.0


def has_headroom(
    gauges: Iterable[Gauges | None], settings: HeadroomSettings, in_flight: int
) -> bool:
    """Whether all engines of a comparison have room.

    Args:
        gauges: Gauges of each engine; None for one without gauges, or with old ones.
        settings: Load from which an engine is busy.
        in_flight: The comparator's own comparisons on these engines.
    """
    for engine in gauges:
        if engine is None:
            # Load unknown: one at a time is never more than one request in the batch.
            if in_flight > 0:
                return False
        elif (
            engine.running >= settings.running
            or engine.waiting > settings.waiting
            or engine.kv_ratio >= settings.kv_ratio
        ):
            return False
    return True


class EngineBudget:
    """Budget of engine seconds, refilled steadily up to one minute's worth.

    The cost of a comparison is known only afterwards. So one may begin while anything is left, and
    its cost may leave a debt; no other begins until the debt is refilled.

    Args:
        budget: Engine seconds per minute.
        now: Monotonic seconds.
    """

    __slots__ = ("_at", "_left", "_per_second", "spent")

    def __init__(self, budget: Budget, now: float) -> None:
        self._left = budget.engine_seconds_per_minute
        self._per_second = budget.engine_seconds_per_minute / 60.0
        self._at = now
        self.spent = 0.0
        """Engine seconds charged since the start."""

    def is_open(self, now: float) -> bool:
        """Whether any budget is left."""
        return self.balance(now) > 0.0

    def balance(self, now: float) -> float:
        """Refill the budget and return the engine seconds left; negative for a debt."""
        elapsed = max(0.0, now - self._at)
        self._left = min(60.0 * self._per_second, self._left + elapsed * self._per_second)
        self._at = max(self._at, now)
        return self._left

    def charge(self, seconds: float) -> None:
        """Take engine seconds off the budget; it may become negative."""
        self._left -= seconds
        self.spent += seconds
