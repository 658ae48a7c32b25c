"""Last reading of each build by each comparator, and the disagreements between them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from penumbra.monitoring import build_facts
from penumbra.monitoring.observations import RunReport

_MOST_READERS = 100
"""Readers of one build that are remembered, the latest ones."""
_SHOWN = 16


@dataclass(frozen=True, slots=True)
class _Reading:
    digest: str
    facts: dict[str, str]

    def differs(self, other: "_Reading") -> bool:
        if self.facts and other.facts:
            return bool(build_facts.differences(self.facts, other.facts))
        # A digest without facts was made another way than one with facts.
        return not self.facts and not other.facts and self.digest != other.digest


class BuildReadings:
    """The last reading of each build by each comparator of a run."""

    def __init__(self) -> None:
        self._read: dict[str, dict[str, _Reading]] = {}
        """Variant -> reader -> its last reading, the latest last."""

    def take(self, reader: str, report: RunReport) -> None:
        """Take the readings of a report.

        Args:
            reader: Name of the comparator and its process start.
            report: Its report.
        """
        for variant, digest in report.fingerprints.items():
            readings = self._read.setdefault(variant, {})
            readings.pop(reader, None)
            readings[reader] = _Reading(digest, dict(report.builds.get(variant, {})))
            if len(readings) > _MOST_READERS:
                del readings[next(iter(readings))]

    @property
    def dispute(self) -> str | None:
        """The first disagreement, with both readers and both digests; None: all agree."""
        return next(self._disputes(), None)

    def _disputes(self) -> Iterator[str]:
        for variant, readings in sorted(self._read.items()):
            (first, reading), *others = sorted(readings.items())
            for other, found in others:
                if found.differs(reading):
                    yield (
                        f"{variant} is {reading.digest[:_SHOWN]} as {first} reads it and"
                        f" {found.digest[:_SHOWN]} as {other} does"
                    )
