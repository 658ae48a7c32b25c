"""One stream of observations: evidence, proof, and the counts for its interval. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penumbra.monitoring.stats.betting import BetSums
from penumbra.monitoring.stats.block_history import Block, BlockHistory
from penumbra.monitoring.stats.intervals import lower_end, upper_end
from penumbra.monitoring.stats.onset import Effect, since_onset
from penumbra.monitoring.stats.wealth import EProcess, Proof

SUSPICIOUS = 5.0
"""Evidence at which a stream is looked at more closely; within tolerance one in five gets there."""


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
    horizon: float = field(repr=False)
    """Observations of the stream within the guard's horizon."""
    blocks: tuple[Block, ...] = field(repr=False)
    """History, oldest first."""
    proof_logs: tuple[float, ...] = field(repr=False)
    """`wealth.Proof.logs`, from which a proof may begin anew: `wealth.proof_since`."""

    @property
    def is_suspicious(self) -> bool:
        """Whether the evidence calls for a closer look."""
        return self.evidence >= SUSPICIOUS

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

    @property
    def effect(self) -> Effect | None:
        """Effect since the estimated onset; None if no beginning speaks against the candidate.

        Worked out when asked for, like the interval.
        """
        return since_onset(
            self.blocks, self.tolerance, self.low, self.high, self.alpha, self.horizon
        )


class Stream:
    """One slice, or the aggregate.

    Args:
        horizon: Its observations within the horizon of the guard.
        low: Least possible observation.
        high: Largest possible observation.
        alpha: Of proof and interval.
    """

    __slots__ = ("_alpha", "_high", "_history", "_horizon", "_low", "evidence", "proof", "seen")

    def __init__(self, horizon: float, low: float, high: float, alpha: float) -> None:
        self._low, self._high, self._alpha, self._horizon = low, high, alpha, horizon
        self._history = BlockHistory()
        self.evidence = EProcess(horizon)
        self.proof = Proof()
        self.seen = BetSums()

    def take(self, sums: BetSums) -> None:
        """Bet on a batch of observations."""
        self.evidence.take(sums)
        self.proof.take(sums)
        self.seen.count += sums.count
        self.seen.total += sums.total
        self._history.add(sums)
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
            "history": self._history.dump(),
        }

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Go on where `dump` was."""
        self.evidence.wealth = [float(value) for value in dumped["wealth"]]
        self.proof.logs = [float(value) for value in dumped["proof"]]
        self.seen.count = int(dumped["count"])
        self.seen.total = float(dumped["total"])
        self.seen.bins = {int(index): int(count) for index, count in dumped["bins"].items()}
        self._history.load(dumped.get("history", ()))

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
            horizon=self._horizon,
            blocks=self._history.blocks,
            proof_logs=tuple(self.proof.logs),
        )
