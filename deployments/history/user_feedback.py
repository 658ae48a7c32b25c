"""A user's judgement of one answer, as it is stored. Pure."""

from dataclasses import dataclass
from typing import Any

CONTENT_SCORE = 0.5
"""A score below it counts as negative feedback."""


@dataclass(frozen=True, slots=True)
class UserFeedback:
    """One row of the table `feedback`; (tenant, request_id) is its identity."""

    request_id: str
    tenant: str
    """The tenant that made the request and judges its answer."""
    model: str
    variant: str
    """The variant that answered."""
    slice: str
    thumb: bool | None
    """True is up."""
    score: float | None
    """In [0, 1]."""
    is_escalated: bool
    metadata: dict[str, Any]
    """Data that the application stores with the judgement; never read here."""

    @property
    def is_negative(self) -> bool:
        """Whether the user was not content: counts as 1 for the signal `feedback`."""
        is_scored_low = self.score is not None and self.score < CONTENT_SCORE
        return self.thumb is False or is_scored_low or self.is_escalated
