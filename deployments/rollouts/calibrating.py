"""Reads the tolerance of displacement from the first pairs of a run. Pure."""

from collections.abc import Sequence
from math import fsum
from typing import Any

FACTOR = 1.3
"""Tolerance over the mean that was found."""
LEAST_OVER_AA = 0.005
"""... and at least this much over the baseline's displacement against itself."""
SLICE_PAIRS = 50
"""A slice with fewer values has the tolerance of all of them together."""
MOST = 0.5
"""No tolerance is read that is larger: a candidate this far off is not fit to be calibrated on."""


class Calibration:
    """Gathers values until there are enough of them.

    Args:
        wanted: How many.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._values: dict[str, list[float]] = {}
        self._aa: list[float] = []

    @property
    def count(self) -> int:
        """Values so far."""
        return sum(map(len, self._values.values()))

    @property
    def is_complete(self) -> bool:
        """Whether there are enough."""
        return self.count >= self.wanted

    def add(self, slice_name: str, value: float) -> None:
        """The displacement of a candidate pair."""
        self._values.setdefault(slice_name, []).append(value)

    def add_aa(self, value: float) -> None:
        """The displacement of the baseline against itself."""
        self._aa.append(value)

    def result(self) -> dict[str, Any]:
        """The tolerances, and how they were read: what goes into the record."""
        pooled = [value for values in self._values.values() for value in values]
        aa = _mean(self._aa)
        own = {name: values for name, values in self._values.items() if len(values) >= SLICE_PAIRS}
        return {
            "pairs": len(pooled),
            "aa_pairs": len(self._aa),
            "aa_mean": aa,
            "mean": _mean(pooled),
            "tolerance": _tolerance(pooled, aa),
            "slices": {
                name: {
                    "pairs": len(values),
                    "mean": _mean(values),
                    "tolerance": _tolerance(values, aa),
                }
                for name, values in sorted(own.items())
            },
            "rule": f"max({FACTOR:g} x mean, aa_mean + {LEAST_OVER_AA:g}), at most {MOST:g}",
        }

    def dump(self) -> dict[str, Any]:
        """JSON-able."""
        return {"wanted": self.wanted, "values": self._values, "aa": self._aa}

    @classmethod
    def restore(cls, dumped: dict[str, Any]) -> "Calibration":
        """Goes on where `dump` was."""
        calibration = cls(dumped["wanted"])
        calibration._values = {name: list(values) for name, values in dumped["values"].items()}
        calibration._aa = list(dumped["aa"])
        return calibration


def _tolerance(values: Sequence[float], aa: float) -> float:
    return min(MOST, max(FACTOR * _mean(values), aa + LEAST_OVER_AA))


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values) if values else 0.0
