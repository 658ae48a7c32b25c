"""Fixed bets on bounded observations, and the sums of their outcomes. Pure.

A stream has eight bets against the candidate and eight for it. The effect of a batch of
observations on a stream is the sum of the logarithms of its factors. Sums can be added in any
order, so several processes can contribute to one stream.

Source: betting martingales (arXiv 2010.09686); the grid is a discretised universal portfolio.
Reading order: bets_against, BetSums.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log1p

BETS = 8
BOLDEST = 0.9
"""Part of the wealth that the boldest bet can lose in one observation."""
STEP = 0.65
"""Each bet is this times the one before."""

EDGES = (0.0, *(10 ** (exponent / 20 - 3) for exponent in range(60)), 1.0)
"""Bins of |observation| for intervals: 0 alone, twenty for each decade from 1e-3 on, 1 alone."""


def bets_against(tolerance: float, low: float) -> tuple[float, ...]:
    """Bets that win where observations lie over the tolerance; 1 + bet (x - tolerance) > 0."""
    return tuple(BOLDEST / (tolerance - low) * STEP**index for index in range(BETS))


def bets_for(tolerance: float, high: float) -> tuple[float, ...]:
    """Bets that win where observations lie under the tolerance; 1 - bet (x - tolerance) > 0."""
    return tuple(BOLDEST / (high - tolerance) * STEP**index for index in range(BETS))


def bin_of(value: float) -> int:
    """The bin of an observation in [-1, 1]; those of negative ones are negative.

    Bin b > 0 holds EDGES[b - 1] < x <= EDGES[b], but 1 has the last one to itself.
    """
    if value < 0:
        return -bin_of(-value)
    return bisect_left(EDGES, value) if value < 1.0 else len(EDGES)


def bin_bounds(index: int) -> tuple[float, float]:
    """The least and the largest observation of a bin."""
    if index < 0:
        low, high = bin_bounds(-index)
        return -high, -low
    if index == 0:
        return 0.0, 0.0
    if index == len(EDGES):
        return 1.0, 1.0
    return EDGES[index - 1], EDGES[index]


@dataclass(slots=True)
class BetSums:
    """Observations of one stream, summed up. Adding sums is commutative.

    It is associative up to the rounding of float addition: the order in which parts are added may
    change the last bits, never more.
    """

    count: int = 0
    total: float = 0.0
    """Sum of the observations."""
    against: list[float] = field(default_factory=lambda: [0.0] * BETS)
    """Sums of ln(1 + bet (x - tolerance))."""
    favour: list[float] = field(default_factory=lambda: [0.0] * BETS)
    """Sums of ln(1 - bet (x - tolerance))."""
    bins: dict[int, int] = field(default_factory=dict)
    """Bin -> observations in it."""

    def add(self, other: "BetSums") -> None:
        """Add other sums to these."""
        self.count += other.count
        self.total += other.total
        for index in range(BETS):
            self.against[index] += other.against[index]
            self.favour[index] += other.favour[index]
        for index, count in other.bins.items():
            self.bins[index] = self.bins.get(index, 0) + count


class Table:
    """The bets of one tolerance.

    Args:
        tolerance: Largest mean that is within tolerance; low < tolerance < high.
        low: Least possible observation.
        high: Largest possible observation.
    """

    __slots__ = ("_against", "_for", "_high", "_low", "tolerance")

    def __init__(self, tolerance: float, low: float, high: float) -> None:
        if not low < tolerance < high:
            raise ValueError(f"found the tolerance {tolerance}, wanted {low} < it < {high}")
        self.tolerance = tolerance
        self._low, self._high = low, high
        self._against = bets_against(tolerance, low)
        self._for = bets_for(tolerance, high)

    def bet(self, value: float, times: int = 1) -> BetSums:
        """Bet on one observation, or on several equal ones; returns the sums.

        Raises:
            ValueError: It is outside the range, or no number.
        """
        if not self._low <= value <= self._high:
            raise ValueError(f"found the observation {value}, wanted {self._low} to {self._high}")
        gap = value - self.tolerance
        return BetSums(
            times,
            value * times,
            log_factors(self._against, gap, times),
            log_factors(self._for, -gap, times),
            {bin_of(value): times},
        )


def log_factors(bets: Sequence[float], gap: float, times: int = 1) -> list[float]:
    """`times` x ln(1 + bet gap) of each bet."""
    return [times * log1p(bet * gap) for bet in bets]
