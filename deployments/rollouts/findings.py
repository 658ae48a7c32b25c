"""Findings: the summary of a run's evidence by which `decide` decides. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penumbra.deployments.rollouts.spec import Action

AGGREGATE = "*"
"""Stands for all slices together; no slice can have this name."""


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
    answered_by: str | None = None
    """The `AnsweredBy` of the pairs with the most evidence; None: the signal is not of pairs."""


@dataclass(frozen=True, slots=True)
class HardFailure:
    """A failure that is certain without statistics."""

    signal: str
    """`not_finite`, `unhealthy`, or a signal that a gateway tripped on by itself."""
    detail: str


@dataclass(frozen=True, slots=True)
class UnfitScorer:
    """A scorer of the candidate that contradicts its decoding, so that its scores say nothing."""

    detail: str
    is_decoding_suspect: bool = False
    """Whether its decoding, and so its answers, may be at fault as well."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Evidence that has come in a run."""

    seconds: float = 0.0
    """Time for which it came (`penumbra.deployments.evidence.evidence_clock`)."""
    pairs: int = 0
    """Candidate pairs that were bet on."""

    def __add__(self, other: "Flow") -> "Flow":
        return Flow(self.seconds + other.seconds, self.pairs + other.pairs)


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings from the evidence of one run at one moment."""

    run: str
    epoch: int = 0
    """The epoch that a change by them makes."""
    has_news: bool = True
    """Whether evidence of the stage has just come; without it nothing advances."""
    pairs: int = 0
    """Candidate pairs that were bet on."""
    flow: Flow = Flow()
    """The evidence of all candidate pairs."""
    live_by_epoch: Mapping[int, Flow] = field(default_factory=dict)
    """That of the pairs in which the candidate answered the client, by the epoch by which they were
    decided; 0: an older comparator did not tell."""
    seen: tuple[str, ...] = ()
    """Slices that have had candidate pairs."""
    proven: tuple[str, ...] = ()
    """Slices within tolerance by every quality signal, with enough pairs, where the baseline
    answered: what can be known before the candidate answers anyone."""
    proven_live: tuple[str, ...] = ()
    """The same by pairs in which the candidate answered."""
    covered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Slice -> its channels that were compared and are proven by themselves."""
    stale: Mapping[str, str] = field(default_factory=dict)
    """Slice, or `AGGREGATE` -> how its workload has left what its proof was made on."""
    revalidations: int = 0
    """How often proofs were begun anew for that, in this run."""
    is_aggregate_proven: bool = False
    """Whether all slices together are, where the baseline answered."""
    is_live_aggregate_proven: bool = False
    """The same where the candidate answered."""
    hard: HardFailure | None = None
    tripped: tuple[Tripped, ...] = ()
    quarantined: Mapping[str, Tripped] = field(default_factory=dict)
    """Slice -> the guardrail that found it beyond tolerance."""
    broken: str | None = None
    """Reason why the instrument cannot be trusted; None: it can."""
    unfit: UnfitScorer | None = None
    """Reason why displacement and the decode gap say nothing of the candidate; None: they do."""
    missing_ratio: float = 0.0
    """Share of the pairs without a usable score, in [0, 1]."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Variant -> digest of its build."""
    aa_alarm: str | None = None
    """The alarm of the A/A arm, in words. Unlike a failed self-test it stays."""
    noise: str | None = None
    """Noise of the measurement that is probably over a tolerance, in words; None: there is none."""
    suspects: tuple[str, ...] = ()
    """Slices with evidence that calls for a closer look; `AGGREGATE`: all of them together."""
    aa_proven: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Signal -> slices in which the baseline is proven to agree with itself; `AGGREGATE`: all of
    them together."""
    aa_pairs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Signal -> slice -> pairs of the baseline with itself."""
    changed: str | None = None
    """Description of the build that has changed since the run began; None: none has."""
    dispute: str | None = None
    """If one has: two comparators that read different builds, with both digests; None: all agree.
    """
    calibration: Mapping[str, Any] | None = None
    """Tolerances read from the first pairs, and how; None: not read (yet)."""
