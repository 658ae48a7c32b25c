"""Interface through which the comparator reports; `ObservationOutbox` implements it."""

from typing import Protocol

from penumbra.monitoring.observations import Pair, Run, SelfTest, Trip


class Reporting(Protocol):
    """Takes observations and never waits."""

    def pair(self, run: Run, pair: Pair) -> None:
        """A compared request."""

    def trip(self, run: Run, trip: Trip) -> None:
        """The candidate must be taken out of service at once."""

    def self_test(self, run: Run, test: SelfTest) -> None:
        """The baseline was scored against itself."""

    def shed(self, run: Run, slice_name: str, reason: str) -> None:
        """A mirrored request was not compared."""

    def fingerprint(self, run: Run, variant: str, digest: str) -> None:
        """The fingerprint of a build was read anew."""
