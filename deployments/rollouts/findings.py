"""What the evidence of a run comes to: all that `decide` needs to know of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penumbra.deployments.rollouts.spec import Action


@dataclass(frozen=True, slots=True)
class Tripped:
    """A guardrail whose evidence has reached its boundary."""

    signal: str
    action: Action
    evidence: float
    boundary: float
    culprits: tuple[str, ...] = ()
    suspect: str | None = None
    """The slice with the most evidence."""


@dataclass(frozen=True, slots=True)
class HardFailure:
    """Something that no statistic is needed for."""

    signal: str
    """`not_finite`, `unhealthy`, or a signal that a gateway tripped on by itself."""
    detail: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The evidence of one run, at one moment."""

    run: str
    pairs: int = 0
    """Candidate pairs that were bet on."""
    seen: tuple[str, ...] = ()
    """Slices that have had any."""
    proven: tuple[str, ...] = ()
    """Slices within tolerance by every quality signal, with enough pairs."""
    is_aggregate_proven: bool = False
    hard: HardFailure | None = None
    tripped: tuple[Tripped, ...] = ()
    quarantined: Mapping[str, Tripped] = field(default_factory=dict)
    """Slice -> the guardrail that found it beyond tolerance."""
    broken: str | None = None
    """Why the instrument cannot be trusted."""
    missing_ratio: float = 0.0
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    changed: str | None = None
    """Which build is not the one any more that the run began with."""
    calibration: Mapping[str, Any] | None = None
