"""Result of one comparison: pairs, the reasons why there are none, and the engines' calls. Pure."""

from dataclasses import dataclass, field

from penumbra.monitoring.observations import Pair
from penumbra.router.mirror.shed_reason import ShedReason


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One call of an engine, for scores or an answer."""

    work: str
    """`score` or `generate`."""
    variant: str
    is_again: bool
    """Whether it is the baseline's second call."""
    seconds: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """The result of one comparison: for each candidate its pairs, or why there are none."""

    pairs: dict[str, tuple[Pair, ...]]
    """Candidate -> its pairs, the A/A pair last."""
    sheds: dict[str, ShedReason]
    """Candidate -> why it has no pair."""
    engine_seconds: float
    calls: tuple[EngineCall, ...] = ()
    """The calls of engines, all made at once."""
    contradictions: dict[str, str] = field(default_factory=dict)
    """Candidate -> why its scores can be no log-probabilities."""
