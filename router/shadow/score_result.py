"""The result of asking one build for scores. Pure."""

from dataclasses import dataclass

from penumbra.router.upstream.port import Scores

TIMEOUT = "timeout"
"""Problem of a score or an answer that did not come within its deadline."""


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Scores of one build, or why there are none."""

    seconds: float
    """Time from the request to the answer, measured in the comparator."""
    scores: Scores | None = None
    problem: str | None = None
    """Why there are no scores: an `Outcome`, or `timeout`; None if there are."""
    is_not_finite: bool = False
    """Whether a log-probability of the build was NaN or infinite."""
    contradiction: str | None = None
    """Why the scores can be no log-probabilities; None if they can."""

    @property
    def usable(self) -> Scores | None:
        """The scores if they can be compared, else None."""
        return None if self.is_not_finite or self.contradiction is not None else self.scores
