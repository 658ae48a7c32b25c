"""Many guards side by side, one row of an array each.

The bets, weights, inflows and the cap are the shipped ones; only the loop over repetitions is
numpy's. `tests/simulation/test_lanes.py` holds it against `penumbra.monitoring.stats.guard.Guard`,
observation by observation.
"""

from collections.abc import Sequence
from math import exp

import numpy as np
import numpy.typing as npt

from penumbra.monitoring.stats.betting import BETS, Table, bets_against
from penumbra.monitoring.stats.guard import AGGREGATE_WEIGHT, GuardSpec
from penumbra.monitoring.stats.wealth import CAP, START, inflow_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


class Lanes:
    """The evidence of `reps` guards of one spec.

    Args:
        spec: Of each guard; its slices are numbered in their order.
        reps: How many.
        values: The possible observations if they are few; their factors are then looked up.
    """

    def __init__(self, spec: GuardSpec, reps: int, values: Sequence[float] | None = None) -> None:
        names = list(spec.tolerances)
        tolerances = [spec.tolerances[name] for name in names]
        self._reps = np.arange(reps)
        self._of_slice = np.full((len(names) * reps, BETS), START)
        self._of_all = np.full((reps, BETS), START)
        self._values = np.full((len(names), reps), START)
        self._flat = self._values.reshape(-1)
        self._inflow = np.array([inflow_of(spec.horizon_of(name)) for name in names])
        self._inflow_of_all = inflow_of(spec.horizon)
        self._tolerances = np.array(tolerances)
        self._bets = np.array([bets_against(tolerance, spec.low) for tolerance in tolerances])
        self._weight = (1.0 - AGGREGATE_WEIGHT) / len(names)
        self._mean = np.full(BETS, 1.0 / BETS)
        self._factors = None if values is None else _factors(spec, tolerances, values)
        self.evidence: Floats = np.full(reps, START)

    def observe(self, slices: Ints, values: Floats, codes: Ints | None = None) -> Floats:
        """One observation in each lane.

        Args:
            slices: Number of the slice, shape (reps,).
            values: Observations, shape (reps,).
            codes: Their indices among the possible ones, if those were given.

        Returns:
            The evidence of each lane.
        """
        if self._factors is None or codes is None:
            gaps = values - self._tolerances[slices]
            factors = 1.0 + self._bets[slices] * gaps[:, None]
        else:
            factors = self._factors[slices, codes]
        self._of_all += self._inflow_of_all
        self._of_all *= factors
        np.minimum(self._of_all, CAP, out=self._of_all)
        rows = slices * len(self._reps) + self._reps
        grown = self._of_slice[rows]
        grown += self._inflow[slices][:, None]
        grown *= factors
        np.minimum(grown, CAP, out=grown)
        self._of_slice[rows] = grown
        self._flat[rows] = grown @ self._mean
        self.evidence = AGGREGATE_WEIGHT * (self._of_all @ self._mean) + (
            self._weight * self._values.sum(axis=0)
        )
        return self.evidence


def _factors(spec: GuardSpec, tolerances: Sequence[float], values: Sequence[float]) -> Floats:
    """What the shipped table makes of each possible observation, shape (slices, values, bets)."""
    tables = [Table(tolerance, spec.low, spec.high) for tolerance in tolerances]
    return np.array(
        [[[exp(log) for log in table.bet(value).against] for value in values] for table in tables]
    )
