"""Whether the engines have room for a comparison, and whether it may still be paid for. Pure.

Both answers depend on what engines do and on what was spent, never on the request that asks: within
a slice every mirrored request has the same chance, however long it is and whatever came of it.
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
    """How busy the engines behind one URL are."""

    running: float
    waiting: float
    kv_ratio: float
    """The fullest of them, in [0, 1]."""


def read_gauges(text: str) -> Gauges | None:
    """The gauges in a page of Prometheus metrics; None if it lacks the first two."""
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
    """Whether all of a comparison's engines have room.

    Args:
        gauges: Of each; None for one that tells nothing or told it too long ago.
        settings: What counts as busy.
        in_flight: The comparator's own comparisons on these engines.
    """
    for found in gauges:
        if found is None:
            # Blind: one at a time is never more than one request in the batch.
            if in_flight > 0:
                return False
        elif (
            found.running >= settings.running
            or found.waiting > settings.waiting
            or found.kv_ratio >= settings.kv_ratio
        ):
            return False
    return True


class EngineBudget:
    """Engine seconds to spend: refilled steadily, a minute's worth at most.

    What a comparison will cost is known only afterwards, so one may begin while anything is left,
    and what it took may leave a debt that the next ones wait for.
    """

    __slots__ = ("_at", "_left", "_per_second", "spent")

    def __init__(self, budget: Budget, now: float) -> None:
        self._left = budget.engine_seconds_per_minute
        self._per_second = budget.engine_seconds_per_minute / 60.0
        self._at = now
        self.spent = 0.0
        """Engine seconds, all told."""

    def is_open(self, now: float) -> bool:
        """Whether something is left."""
        return self.balance(now) > 0.0

    def balance(self, now: float) -> float:
        """Engine seconds left; negative for a debt."""
        elapsed = max(0.0, now - self._at)
        self._left = min(60.0 * self._per_second, self._left + elapsed * self._per_second)
        self._at = max(self._at, now)
        return self._left

    def charge(self, seconds: float) -> None:
        """Pay for what engines did."""
        self._left -= seconds
        self.spent += seconds
