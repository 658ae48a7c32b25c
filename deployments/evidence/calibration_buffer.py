"""Gathers the first pairs of a run, of which the tolerance of displacement is read. Pure."""

from typing import Any

import msgspec

from penumbra.monitoring.signals.calibration import Calibration, calibrate


class CalibrationBuffer:
    """Gathers values until there are enough of them.

    Args:
        wanted: How many.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._values: dict[str, list[float]] = {}
        self._aa: dict[str, list[float]] = {}

    @property
    def count(self) -> int:
        """Values so far."""
        return sum(map(len, self._values.values()))

    def add(self, slice_name: str, value: float) -> None:
        """The displacement of a candidate pair."""
        self._values.setdefault(slice_name, []).append(value)

    def add_aa(self, slice_name: str, value: float) -> None:
        """The displacement of the baseline against itself."""
        self._aa.setdefault(slice_name, []).append(value)

    def result(self) -> Calibration | None:
        """The tolerances, and how they were read; None while there are too few values."""
        read = calibrate(self._values, self._aa, self.wanted)
        return read if isinstance(read, Calibration) else None


def to_record(calibration: Calibration) -> dict[str, Any]:
    """What goes into the record: JSON types only."""
    built: dict[str, Any] = msgspec.to_builtins(calibration)
    return built
