"""Schemas of what is known of signals: streams, effects, proofs."""

from pydantic import BaseModel


class EffectView(BaseModel):
    """Effect of a stream since the estimated onset of its being beyond tolerance."""

    slice: str | None
    """Null: all slices together."""
    pairs: int
    """Observations of the whole run."""
    since_pairs: int
    """Observations since the onset."""
    mean: float
    lower: float
    upper: float
    """Interval of the mean since the onset, which holds although the onset was estimated."""
    tolerance: float


class StreamView(BaseModel):
    """One signal in one slice (or over all: `slice` is null)."""

    slice: str | None
    answered_by: str | None = None
    """`baseline` or `candidate`: who answered the clients of these pairs, each with a tolerance and
    a proof of its own; null: all of them, or the signal is not of pairs."""
    count: int
    """Number of observations that were bet on."""
    mean: float | None
    tolerance: float
    evidence: float
    """Evidence against the candidate; the boundary is for the weighted average of all streams."""
    proof: float
    """Evidence for the candidate."""
    is_proven: bool
    """Whether this signal's proof is at `proof_boundary`; `RolloutView.proof` says which slices are
    proven by all signals."""
    lower: float | None
    upper: float | None
    """Anytime-valid interval of the mean; null without observations."""
    effect: EffectView | None = None
    """Effect since the estimated onset, once the evidence is suspicious; null before."""


class FloorView(BaseModel):
    """Floor of one time in one slice: its usual ratio to a shadow answer's in equal builds."""

    slice: str
    time: str
    """`first` or `pace` of streams, or `whole` of other answers."""
    pairs: int
    """Pairs of the block that is being filled; the baseline answered their clients."""
    wanted_pairs: int
    """Pairs of a block."""
    latest: float | None
    """Ratio to the shadow answer's time beyond which an answer is late; null: not known yet, before
    the first block is full."""


class SignalView(BaseModel):
    """One guardrail."""

    signal: str
    action: str
    alpha: float
    evidence: float
    boundary: float
    """The guardrail acts when `evidence` reaches it."""
    horizon: int | None = None
    """Observations for which `alpha` holds: pairs, and candidate requests for failure."""
    proof_boundary: float
    """Proof of one slice alone; see `SliceProofView.boundary`."""
    is_tripped: bool
    culprits: list[str]
    calibrating: str | None
    """`json 12, other 40 of 1000 pairs each`: slices whose tolerance is being read; null: none.
    What is read where the candidate answered follows behind a semicolon."""
    without_counterpart: dict[str, int] = {}
    """Of a latency: slice -> live answers that were not judged: the baseline gave too few in the
    slice at the time, and no shadow answer with a known floor stood beside them."""
    beside_shadow: dict[str, int] = {}
    """Of a latency: slice -> live answers that were judged beside the baseline's shadow answer."""
    floors: list[FloorView] = []
    """Of a latency: the floors of the slices that either names."""
    aggregate: StreamView | None
    slices: list[StreamView]


class SliceProofView(BaseModel):
    """Proof of one slice by all quality signals together."""

    slice: str
    proof: float
    """The least proof of a quality signal; at most 1 while the slice has too few pairs."""
    boundary: float
    """Proof at which it is proven: that of one slice alone, and what the other slices that are not
    proven lack to it. It falls as the others come along."""
    is_proven: bool
    """Whether it was ever proven in this run."""


class ProofView(BaseModel):
    """Proof of the slices as one family."""

    alpha: float
    """Probability that any slice beyond tolerance is called proven in this run."""
    earlier_runs: int
    """Earlier runs of the same builds that could prove a slice; `alpha` is less the more of them
    there were, so that `promotion_alpha` of the rollout holds over all of them."""
    slices: list[SliceProofView]
