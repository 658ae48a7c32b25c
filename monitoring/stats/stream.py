"""One stream of observations: evidence, proof, and the counts for its interval. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penumbra.monitoring.stats.betting import BetSums
from penumbra.monitoring.stats.intervals import lower_end, upper_end
from penumbra.monitoring.stats.wealth import EProcess, Proof


@dataclass(frozen=True, slots=True)
class StreamView:
    """Present figures of one stream."""

    count: int
    mean: float | None
    """None without observations."""
    tolerance: float
    """The aggregate's is the mean of the tolerances of what was observed."""
    evidence: float
    proof: float
    is_proven: bool
    """Whether the proof stands at its boundary now; a later decline takes it back."""
    bins: Mapping[int, int] = field(repr=False)
    """Counts that the interval is made of: `betting.bin_of` -> observations."""
    low: float = field(repr=False)
    high: float = field(repr=False)
    alpha: float = field(repr=False)

    @property
    def lower(self) -> float:
        """Lower end of the mean's anytime-valid interval; `low` at n = 0.

        Worked out when asked for: milliseconds, which no decision has to spend.
        """
        return lower_end(self.bins, self.low, self.high, self.alpha)

    @property
    def upper(self) -> float:
        """Upper end; `high` at n = 0."""
        return upper_end(self.bins, self.low, self.high, self.alpha)


class Stream:
    """One slice, or the aggregate.

    Args:
        horizon: Its observations within the horizon of the guard.
        low: Least possible observation.
        high: Largest possible observation.
        alpha: Of proof and interval.
    """

    __slots__ = ("_alpha", "_high", "_low", "evidence", "proof", "seen")

    def __init__(self, horizon: float, low: float, high: float, alpha: float) -> None:
        self._low, self._high, self._alpha = low, high, alpha
        self.evidence = EProcess(horizon)
        self.proof = Proof()
        self.seen = BetSums()

    def take(self, sums: BetSums) -> None:
        """Bet on a batch of observations."""
        self.evidence.take(sums)
        self.proof.take(sums)
        self.seen.count += sums.count
        self.seen.total += sums.total
        bins = self.seen.bins
        for index, count in sums.bins.items():
            bins[index] = bins.get(index, 0) + count

    def dump(self) -> dict[str, Any]:
        """The state as JSON has it."""
        return {
            "wealth": list(self.evidence.wealth),
            "proof": list(self.proof.logs),
            "count": self.seen.count,
            "total": self.seen.total,
            "bins": {str(index): count for index, count in self.seen.bins.items()},
        }

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Go on where `dump` was."""
        self.evidence.wealth = [float(value) for value in dumped["wealth"]]
        self.proof.logs = [float(value) for value in dumped["proof"]]
        self.seen.count = int(dumped["count"])
        self.seen.total = float(dumped["total"])
        self.seen.bins = {int(index): int(count) for index, count in dumped["bins"].items()}

    def view(self, tolerance: float) -> StreamView:
        """Present figures of the stream."""
        seen, proof = self.seen, self.proof.value
        return StreamView(
            count=seen.count,
            mean=seen.total / seen.count if seen.count else None,
            tolerance=tolerance,
            evidence=self.evidence.value,
            proof=proof,
            is_proven=proof >= 1.0 / self._alpha,
            bins=dict(seen.bins),
            low=self._low,
            high=self._high,
            alpha=self._alpha,
        )
