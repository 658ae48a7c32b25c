"""Buffer for the first pairs of each slice, from which its tolerance is read. Pure.

Pairs of either kind (`AnsweredBy`) have a buffer of their own: greedy tokens are further from the
other build than from the one that chose them, so the levels of both kinds differ.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from penumbra.monitoring.observations import AnsweredBy
from penumbra.monitoring.signals.calibration import RULE, Reading, read_tolerance

AA_PAIRS = 30
"""A slice with fewer pairs of the baseline with itself takes those of all slices."""
_MOST_AA = 10_000


class CalibrationBuffer:
    """Gathers the displacements of one kind of pair until each slice has enough to be read.

    Args:
        wanted: Number of values of a slice that are enough.
        alpha: Probability, over all slices together, that a mean exceeds what is read for it.
        slices: The slices that are read; pairs of others are left out.
    """

    def __init__(self, wanted: int, alpha: float, slices: Iterable[str]) -> None:
        self.wanted = wanted
        self._values: dict[str, list[float]] = {name: [] for name in slices}
        self._alpha = alpha / max(1, len(self._values))
        self._aa: dict[str, list[float]] = {}
        self.readings: dict[str, Reading] = {}
        """Slice -> the tolerance that was read."""

    @property
    def counts(self) -> dict[str, int]:
        """Slice -> number of its values so far, of those that are not read yet."""
        return {name: len(values) for name, values in self._values.items()}

    def awaits(self, slice_name: str) -> bool:
        """Whether the tolerance of a slice is still to be read."""
        return slice_name in self._values

    def add(self, slice_name: str, value: float) -> Reading | None:
        """Adds the displacement of a candidate pair; returns the tolerance that it completes."""
        values = self._values.get(slice_name)
        if values is None:
            return None
        values.append(value)
        if len(values) < self.wanted:
            return None
        own = self._aa.get(slice_name, [])
        aa = own if len(own) >= AA_PAIRS else [each for some in self._aa.values() for each in some]
        reading = self.readings[slice_name] = read_tolerance(values, aa, self._alpha)
        del self._values[slice_name]
        return reading

    def add_aa(self, slice_name: str, value: float) -> None:
        """Adds the displacement of the baseline against itself."""
        values = self._aa.setdefault(slice_name, [])
        if len(values) < _MOST_AA:
            values.append(value)


def record_of(buffers: Mapping[AnsweredBy, CalibrationBuffer]) -> dict[str, Any] | None:
    """Turns what was read into JSON types, for the record; None if nothing was read yet.

    `slices` are the tolerances where the baseline answered, as in older stores, which had one of
    both kinds; `live_slices` those where the candidate did, and left out while there is none.
    """
    readings = {kind: buffer.readings for kind, buffer in buffers.items()}
    if not any(readings.values()):
        return None
    found = {"slices": msgspec.to_builtins(readings[AnsweredBy.BASELINE]), "rule": RULE}
    live = readings.get(AnsweredBy.CANDIDATE)
    return found | {"live_slices": msgspec.to_builtins(live)} if live else found
