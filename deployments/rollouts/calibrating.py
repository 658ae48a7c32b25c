"""Gathers the first pairs of a run, from which the tolerance of displacement is read. Pure."""

from typing import Any

import msgspec

from monitoring.signals.calibration import Refusal, calibrate


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
        """The tolerances, and how they were read: what goes into the record.

        Raises:
            ValueError: There are not enough values.
        """
        read = calibrate(self._values, {"": self._aa}, self.wanted)
        if isinstance(read, Refusal):
            raise ValueError(read.reason)
        return {
            **msgspec.to_builtins(read.default),
            "slices": msgspec.to_builtins(read.slices),
            "too_few": list(read.too_few),
            "rule": read.rule,
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
