"""Intervals of a mean that hold at all times together, from counts alone. Pure.

The interval is every tolerance that neither e-process (the plain one against, the one for) refutes
at level alpha / 2. Both are monotone in the tolerance, so each end is found by bisection.
Observations are known by their bin; each end takes the side of the bin that makes it wider.

Guarantee: P(the mean is ever outside) <= alpha, if the mean is constant given the past.
"""

from collections.abc import Mapping
from math import log

from monitoring.stats.betting import bets_against, bets_for, bin_bounds, log_factors
from monitoring.stats.wealth import log_mean_exp

_STEPS = 30


def interval(bins: Mapping[int, int], low: float, high: float, alpha: float) -> tuple[float, float]:
    """The interval of the mean.

    Args:
        bins: `betting.bin_of` -> observations.
        low: Least possible observation.
        high: Largest possible observation.
        alpha: In (0, 1).

    Returns:
        Lower and upper end; the whole range where there are no observations.
    """
    bar = log(2.0 / alpha)
    bounds = [(bin_bounds(index), count) for index, count in bins.items() if count]
    least = [(max(low, lower), count) for (lower, _), count in bounds]
    most = [(min(high, upper), count) for (_, upper), count in bounds]

    def is_too_low(tolerance: float) -> bool:
        return _wealth(least, bets_against(tolerance, low), tolerance, 1.0) >= bar

    def is_too_high(tolerance: float) -> bool:
        return _wealth(most, bets_for(tolerance, high), tolerance, -1.0) >= bar

    refuted, left = low, high
    for _ in range(_STEPS):
        middle = (refuted + left) / 2
        if is_too_low(middle):
            refuted = middle
        else:
            left = middle
    right, refuted_above = low, high
    for _ in range(_STEPS):
        middle = (right + refuted_above) / 2
        if is_too_high(middle):
            refuted_above = middle
        else:
            right = middle
    return refuted, refuted_above


def _wealth(
    values: list[tuple[float, int]], bets: tuple[float, ...], tolerance: float, sign: float
) -> float:
    sums = [0.0] * len(bets)
    for value, count in values:
        for index, term in enumerate(log_factors(bets, sign * (value - tolerance), count)):
            sums[index] += term
    return log_mean_exp(sums)
