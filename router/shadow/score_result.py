"""What came of asking one build for scores. Pure."""

from dataclasses import dataclass

from penumbra.router.upstream.port import Scores


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """What came of one score."""

    seconds: float
    """From the request to the answer, as seen from here."""
    scores: Scores | None = None
    problem: str | None = None
    """Why there are none: an `Outcome`."""
    is_not_finite: bool = False
    """The build's numbers are no numbers."""

    @property
    def usable(self) -> Scores | None:
        """Scores that can be compared."""
        return None if self.is_not_finite else self.scores
