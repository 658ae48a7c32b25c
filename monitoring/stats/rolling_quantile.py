"""Quantile of the last one to two minutes, in constant memory and time. Pure.

Values are counted in buckets whose bounds grow by 4 %, so the answer is at most 4 % too high. Two
generations of buckets take turns: what counts is the current one and the one before it.
"""

import math

_LOWEST = 1e-4
_GROWTH = 1.04
_BUCKETS = 420
"""Up to 1e-4 * 1.04 ** 420 = 1,400."""
_PER_LOG = 1 / math.log(_GROWTH)
_RECOMPUTE_SECONDS = 1.0


class RollingQuantile:
    """One quantile of recent positive values (seconds, say).

    Args:
        quantile: In (0, 1).
        least: With fewer values there is no answer.
        generation_seconds: The answer covers between one and two times this.
    """

    __slots__ = (
        "_began_at", "_cached", "_cached_until", "_counts", "_earlier", "_earlier_total",
        "_generation_seconds", "_least", "_quantile", "_total",
    )  # fmt: skip

    def __init__(
        self, quantile: float = 0.9, least: int = 50, generation_seconds: float = 60.0
    ) -> None:
        self._quantile = quantile
        self._least = least
        self._generation_seconds = generation_seconds
        self._began_at = -math.inf
        self._counts = [0] * _BUCKETS
        self._total = 0
        self._earlier = [0] * _BUCKETS
        self._earlier_total = 0
        self._cached: float | None = None
        self._cached_until = -math.inf

    def add(self, value: float, now: float) -> None:
        """Count one value.

        Args:
            value: 0 or more.
            now: Monotonic seconds; never less than before.
        """
        if now - self._began_at >= self._generation_seconds:
            self._rotate(now)
        index = int(math.log(value / _LOWEST) * _PER_LOG) + 1 if value > _LOWEST else 0
        self._counts[min(index, _BUCKETS - 1)] += 1
        self._total += 1

    def value(self, now: float) -> float | None:
        """The quantile, at most a second old; None while there are too few values."""
        if now - self._began_at >= self._generation_seconds:
            self._rotate(now)
        if now >= self._cached_until:
            self._cached = self._compute()
            self._cached_until = now + _RECOMPUTE_SECONDS
        return self._cached

    def _rotate(self, now: float) -> None:
        is_recent = now - self._began_at < 2 * self._generation_seconds
        self._earlier = self._counts if is_recent else [0] * _BUCKETS
        self._earlier_total = self._total if is_recent else 0
        self._counts = [0] * _BUCKETS
        self._total = 0
        self._began_at = now
        self._cached_until = -math.inf

    def _compute(self) -> float | None:
        total = self._total + self._earlier_total
        if total < self._least:
            return None
        wanted = self._quantile * total
        seen = 0
        for index, (count, earlier) in enumerate(zip(self._counts, self._earlier, strict=True)):
            seen += count + earlier
            if seen >= wanted:
                return float(_LOWEST * _GROWTH**index)
        return math.inf
