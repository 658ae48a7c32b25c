"""Buffer for the first pairs of a run, from which the tolerance of displacement is read. Pure."""

from typing import Any

import msgspec

from penumbra.monitoring.signals.calibration import Calibration, calibrate


class CalibrationBuffer:
    """Gathers displacements until there are enough to read tolerances from.

    Args:
        wanted: Number of values that are enough.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._values: dict[str, list[float]] = {}
        self._aa: dict[str, list[float]] = {}

    @property
    def count(self) -> int:
        """Number of values so far."""
        return sum(map(len, self._values.values()))

    def add(self, slice_name: str, value: float) -> None:
        """Adds the displacement of a candidate pair."""
        self._values.setdefault(slice_name, []).append(value)

    def add_aa(self, slice_name: str, value: float) -> None:
        """Adds the displacement of the baseline against itself."""
        self._aa.setdefault(slice_name, []).append(value)

    def result(self) -> Calibration | None:
        """Reads the tolerances from the values; None while there are too few."""
        read = calibrate(self._values, self._aa, self.wanted)
        return read if isinstance(read, Calibration) else None


def to_record(calibration: Calibration) -> dict[str, Any]:
    """Turns a calibration into JSON types, for the record."""
    record: dict[str, Any] = msgspec.to_builtins(calibration)
    return record
