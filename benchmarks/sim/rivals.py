"""Rules that others use, as they are usually written, for comparison."""

from statistics import NormalDist

import numpy as np

from benchmarks.sim.lanes import Floats, Ints
from benchmarks.sim.traffic import ALPHA, SLICES

WINDOW = 120
"""Requests in a minute, at two a second: how often a dashboard looks."""
LOOK = 10
"""Requests between two looks of mSPRT."""
BURN_IN = 50
FAILED_CHECKS = 5
LEAST_IN_SLICE = 30
SPREAD = {"harm": 0.2, "displacement": 0.045}
"""Standard deviation of healthy observations, which the window rule is given."""
MIXING = {"harm": 0.05, "displacement": 0.01}
"""Standard deviation of mSPRT's prior over effects."""

CHECKS = "window mean > m, 5 checks"
THREE_SE = "window mean > m + 3 SE"
T_ZERO = "peeking t, H0: no difference"
T_WITHIN = "peeking t, H0: within m"
T_SLICES = "peeking t within m, slices"
MSPRT = "mSPRT, plug-in variance"
RULES = (CHECKS, THREE_SE, T_ZERO, T_WITHIN, T_SLICES, MSPRT)


class Rivals:
    """When each rule first says roll back, in each repetition."""

    def __init__(self, reps: int, tolerance: float, signal: str) -> None:
        self.first = {rule: np.full(reps, np.inf) for rule in RULES}
        self._tolerance = tolerance
        self._error = SPREAD[signal] / WINDOW**0.5
        self._prior = MIXING[signal] ** 2
        self._reps = reps
        self._sums = np.zeros((3, SLICES + 1, reps))  # count, sum, sum of squares; last: all
        self._failed = np.zeros(reps)
        weights = np.r_[np.full(SLICES, 0.5 / SLICES), 0.5]
        self._bars = -np.log(ALPHA * weights)[:, None]
        self._quantiles = np.array([NormalDist().inv_cdf(1 - ALPHA * weight) for weight in weights])
        self._quantile = NormalDist().inv_cdf(1 - ALPHA)

    def observe(self, first: int, slices: Ints, values: Floats) -> None:
        """A window of observations.

        Args:
            first: How many there were before.
            slices: Shape (WINDOW, reps).
            values: Shape (WINDOW, reps).
        """
        for start in range(0, len(values), LOOK):
            self._sum_up(slices[start : start + LOOK], values[start : start + LOOK])
            self._mixture(first + start + LOOK)
        now = first + len(values)
        window = values.mean(axis=0)
        self._failed += window > self._tolerance
        self._hit(CHECKS, self._failed >= FAILED_CHECKS, now)
        self._hit(THREE_SE, window > self._tolerance + 3 * self._error, now)
        self._t_tests(now)

    def _hit(self, rule: str, mask: np.ndarray, now: int) -> None:
        first = self.first[rule]
        first[mask & np.isinf(first)] = now

    def _sum_up(self, slices: Ints, values: Floats) -> None:
        cells = (slices * self._reps + np.arange(self._reps)).ravel()
        size = SLICES * self._reps
        for index, weights in enumerate((None, values.ravel(), values.ravel() ** 2)):
            found = np.bincount(cells, weights, size).reshape(SLICES, self._reps)
            self._sums[index, :SLICES] += found
            self._sums[index, SLICES] += found.sum(axis=0)

    def _moments(self, least: float) -> tuple[Floats, Floats, Floats]:
        count, total, squares = self._sums
        number = np.maximum(count, 1.0)
        mean = total / number
        return number, mean, np.maximum(squares / number - mean**2, least)

    def _mixture(self, now: int) -> None:
        number, mean, variance = self._moments(1e-6)
        gap, prior = mean - self._tolerance, self._prior
        spread = variance + number * prior
        logs = 0.5 * np.log(variance / spread)
        logs += number**2 * prior * gap**2 / (2 * variance * spread)
        is_over = (gap > 0) & (self._sums[0] >= BURN_IN) & (logs >= self._bars)
        self._hit(MSPRT, is_over.any(axis=0), now)

    def _t_tests(self, now: int) -> None:
        number, mean, variance = self._moments(1e-9)
        error = np.sqrt(variance / number)
        self._hit(T_ZERO, mean[SLICES] / error[SLICES] > self._quantile, now)
        scores = (mean - self._tolerance) / error
        self._hit(T_WITHIN, scores[SLICES] > self._quantile, now)
        is_over = (scores > self._quantiles[:, None]) & (self._sums[0] >= LEAST_IN_SLICE)
        self._hit(T_SLICES, is_over.any(axis=0), now)
