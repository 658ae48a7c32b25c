"""Interface through which the comparator reports; `ObservationOutbox` implements it."""

from collections.abc import Mapping
from typing import Protocol

from penumbra.monitoring.observations import Pair, Run, ScorerTest, SelfTest, Trip


class Reporting(Protocol):
    """Takes observations and never waits."""

    def pair(self, run: Run, pair: Pair) -> None:
        """Report a compared request."""

    def trip(self, run: Run, trip: Trip) -> None:
        """Report that the candidate must be taken out of service at once."""

    def self_test(self, run: Run, test: SelfTest) -> None:
        """Report a self-test of the baseline."""

    def scorer_test(self, run: Run, test: ScorerTest) -> None:
        """Report a test of the candidate's scorer."""

    def shed(self, run: Run, slice_name: str, reason: str) -> None:
        """Report a mirrored request that was not compared."""

    def fingerprint(self, run: Run, variant: str, digest: str, facts: Mapping[str, str]) -> None:
        """Report the fingerprint of a build that was read anew, and the facts that it is of."""
