"""Anytime-valid intervals of a mean, computed from counts alone. Pure.

An interval holds at all times together. It contains every tolerance that neither plain e-process
(against and for) refutes at level alpha / 2. Both are monotone in the tolerance, so each end is
found by bisection. Observations are known by their bin; each end takes the side of the bin that
makes it wider.

Guarantee: P(the mean is ever outside) <= alpha, if the mean is constant given the past.
"""

from collections.abc import Callable, Mapping
from math import log

from penumbra.monitoring.stats.betting import bets_against, bets_for, bin_bounds, log_factors
from penumbra.monitoring.stats.wealth import log_mean_exp

_STEPS = 24


def lower_end(bins: Mapping[int, int], low: float, high: float, alpha: float) -> float:
    """The largest mean that the observations refute as too low; `low` without any.

    Args:
        bins: `betting.bin_of` -> observations.
        low: Least possible observation.
        high: Largest possible observation.
        alpha: Of both ends together, in (0, 1).
    """
    bar = log(2.0 / alpha)
    least = [(max(low, bin_bounds(index)[0]), count) for index, count in bins.items() if count]
    return _frontier(
        low, high, lambda mean: _wealth(least, bets_against(mean, low), mean, 1.0) >= bar
    )


def upper_end(bins: Mapping[int, int], low: float, high: float, alpha: float) -> float:
    """The least mean that the observations refute as too high; `high` without any.

    Args:
        bins: `betting.bin_of` -> observations.
        low: Least possible observation.
        high: Largest possible observation.
        alpha: Of both ends together, in (0, 1).
    """
    bar = log(2.0 / alpha)
    most = [(min(high, bin_bounds(index)[1]), count) for index, count in bins.items() if count]
    return _frontier(high, low, lambda mean: _wealth(most, bets_for(mean, high), mean, -1.0) >= bar)


def _frontier(refuted: float, left: float, is_refuted: Callable[[float], bool]) -> float:
    """The last refuted mean on the way from `refuted` to `left`, by bisection."""
    for _ in range(_STEPS):
        middle = (refuted + left) / 2
        if is_refuted(middle):
            refuted = middle
        else:
            left = middle
    return refuted


def _wealth(
    values: list[tuple[float, int]], bets: tuple[float, ...], tolerance: float, sign: float
) -> float:
    sums = [0.0] * len(bets)
    for value, count in values:
        for index, term in enumerate(log_factors(bets, sign * (value - tolerance), count)):
            sums[index] += term
    return log_mean_exp(sums)
