"""Rollout as an operator declares it in YAML. Frozen, strict, pure.

Reading order: RolloutSpec, Guardrail, AdvanceRules, MirrorRates.
"""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from penumbra.monitoring.observations import Signal
from penumbra.monitoring.signals.decode_gap import LIMIT
from penumbra.router.flags.bucketing import basis_points
from penumbra.router.flags.routing_table import NAME, Cluster, Scope

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)

Action = Literal["rollback", "quarantine", "hold", "alert"]
SHADOW = "shadow"

SAFETY = frozenset({"rollback", "quarantine"})
"""Actions that take traffic away. Their guardrails share the rollout's alpha."""
SCORED = frozenset({Signal.DISPLACEMENT, Signal.DECODE_GAP})
"""Signals that rest on the candidate's scores of tokens."""
QUALITY = SCORED | {Signal.HARM}
"""Signals of pairs: a broken instrument makes them worthless."""
PROVED = frozenset({Signal.DISPLACEMENT, Signal.HARM})
"""Signals by which promotion is proved. The decode gap has to be, where it was observed: not every
engine tells the log-probabilities of its decoding."""
LATENCY = frozenset({Signal.TTFT, Signal.TPOT})
REMEMBERED = 250_000
"""Prompts, and as many sessions, that a run remembers: the bound of the horizon."""


class Calibrate(BaseModel):
    """Tolerance that is read from the first pairs, then frozen."""

    model_config = _STRICT

    calibrate: int = Field(ge=20, le=10_000)
    """Number of pairs to read it from; they are no evidence."""


class Guardrail(BaseModel):
    """One signal, its tolerance, and the action beyond the tolerance."""

    model_config = _STRICT

    signal: Signal = Field(strict=False)
    tolerance: float | Calibrate
    """Largest mean of the signal that is within tolerance; see `Signal` for its range."""
    slices: dict[str, float] = {}
    """Slice -> its own tolerance."""
    action: Action
    share: float | None = Field(default=None, gt=0, le=1)
    """Part of the rollout's alpha, for `rollback` and `quarantine`. `hold` and `alert` take no
    traffic away and have an alpha of their own."""
    missing: Literal["ignore", "worst"] = "ignore"
    """For displacement: how a pair counts whose candidate gave no usable score. For harm it is
    always the worst: an answer that one build alone did not give is harm. Other signals miss
    nothing, and take no `worst`."""
    factor: float = Field(default=1.5, gt=0, le=100)
    """For ttft and tpot: late is more than this times the baseline's recent p90; same for both."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        tolerances = [*self.slices.values()]
        if isinstance(self.tolerance, Calibrate):
            if self.signal is not Signal.DISPLACEMENT:
                yield f"found calibrate for {self.signal}, wanted it only for displacement"
        else:
            tolerances.append(self.tolerance)
        for value in tolerances:
            # NaN fails the comparison too.
            most = LIMIT if self.signal is Signal.DECODE_GAP else 1
            if not 0 < value < most:
                yield f"found the tolerance {value:g}, wanted more than 0 and less than {most:g}"
        if (self.action in SAFETY) != (self.share is not None):
            wanted = "a share" if self.action in SAFETY else "none"
            yield f"found share {self.share} with action {self.action}, wanted {wanted}"
        if self.action == "quarantine" and self.signal is Signal.FAILURE:
            yield "found action quarantine for failure, wanted rollback, hold or alert"


class AdvanceRules(BaseModel):
    """Conditions of an advance besides the verdict."""

    model_config = _STRICT

    pairs: int = Field(default=300, ge=1)
    """Least candidate pairs of the run."""
    slice_pairs: int = Field(default=300, ge=1)
    """Least pairs of a slice before it can be proven."""
    stage_seconds: float = Field(default=86_400.0, ge=0)
    """Least time of evidence in each stage: that in which pairs came, at a live stage such ones in
    which the candidate answered."""
    stage_pairs: int = Field(default=50, ge=1)
    """Least pairs in each stage, at a live stage of those."""
    broken_seconds: float = Field(default=900.0, ge=0)
    """Time after which a candidate whose instrument is broken loses its live share."""
    horizon: int = Field(default=100_000, ge=100, le=REMEMBERED)
    """Pairs for which the bound on false rollbacks holds; undecided by then is inconclusive."""
    failure_requests: int | None = Field(default=None, ge=1000)
    """Candidate requests for which the bound on false trips of failure holds, over all gateways
    and in each; live traffic uses them up sooner than pairs. Null: `horizon` requests over all
    gateways, and 100,000 in each."""
    missing_ratio: float = Field(default=0.05, ge=0, le=1)
    """Largest share of pairs without a usable score that an advance tolerates."""
    workload_shift: float = Field(default=0.2, gt=0, le=1)
    """Distance (total variation) between the pairs of now and those of a proof within which it
    holds; 1: no distance makes a proof stale."""
    workload_seconds: float = Field(default=86_400.0, ge=0)
    """Time for which a larger distance has to last: a day, so that a daily rhythm is none."""


class MirrorRates(BaseModel):
    """Shares of the requests that are compared."""

    model_config = _STRICT

    rate: float = Field(default=1.0, ge=0, le=1)
    slices: dict[str, float] = {}
    """Slice -> its own rate, in [0, 1]."""
    generate: float = Field(default=1.0, ge=0, le=1)
    """Share of the mirrored requests on which the other arm also generates (harm). At 1 each build
    answers a mirrored request once, as if it served all traffic."""
    aa: float = Field(default=0.05, ge=0, le=1)
    """Share of the mirrored requests that also compare the baseline with itself."""
    cluster: Cluster = "conversation"
    """Requests of which one is compared, for their answers depend on each other: the turns of one
    conversation, known by its instructions and its first user message. `prompt`: only requests with
    the same prompt, for workloads whose requests all begin with the same messages."""
    aa_tolerance: float = Field(default=0.005, gt=0, lt=1)
    """Displacement of the baseline against itself beyond which the instrument is broken."""

    @model_validator(mode="after")
    def _rates_are_shares(self) -> Self:
        for name, rate in self.slices.items():
            if not 0 <= rate <= 1:
                raise ValueError(f"found the rate {rate:g} of {name}, wanted 0 to 1")
        return self


_DEFAULT_GUARDRAILS = (
    Guardrail(
        signal=Signal.DISPLACEMENT,
        tolerance=Calibrate(calibrate=1000),
        action="rollback",
        share=0.2,
    ),
    Guardrail(signal=Signal.DECODE_GAP, tolerance=0.01, action="rollback", share=0.1),
    Guardrail(signal=Signal.HARM, tolerance=0.02, action="rollback", share=0.6, missing="worst"),
    Guardrail(signal=Signal.FAILURE, tolerance=0.005, action="rollback", share=0.1),
)


class RolloutSpec(BaseModel):
    """Staged change from the baseline to a candidate."""

    model_config = _STRICT

    model: str = Field(min_length=1)
    candidate: str = Field(pattern=NAME)
    stages: tuple[Literal["shadow"] | float, ...] = ("shadow", 1.0, 5.0, 25.0, 50.0, 100.0)
    """`shadow`, then rising percents of the traffic."""
    gates: AdvanceRules = AdvanceRules()
    mirror: MirrorRates = MirrorRates()
    alpha: float = Field(default=0.01, gt=0, le=0.5)
    """Bound on the probability of a false rollback within the horizon."""
    promotion_alpha: float = Field(default=0.05, gt=0, le=0.5)
    """Bound on the probability that a slice beyond tolerance is ever called proven."""
    scope: Scope | None = None
    """The requests that the rollout is about, by tenants, headers and slices. Outside of it the
    candidate gets no share, and nothing is compared. Null: all requests."""
    required_slices: tuple[str, ...] | None = None
    """Slices that must be proven before traffic moves. Null: every slice that has traffic and is
    not quarantined. Empty: any one slice. Slices not proven stay on the baseline."""
    on_rollback: Literal["finish", "continue"] = "finish"
    """Candidate streams under way at a rollback: they finish, or the baseline continues them."""
    gateways: int = Field(default=4, ge=1, le=1000)
    """Gateway processes; the alpha of their own failure trips is divided among them."""
    candidates: int = Field(default=1, ge=1, le=100)
    """Candidates of the model under guard at once, among which alpha is divided: if each declares
    as many as there are, the bound holds for all of them together."""
    guardrails: tuple[Guardrail, ...] = Field(default=_DEFAULT_GUARDRAILS, min_length=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        if not self.stages or self.stages[0] != SHADOW:
            yield "stages: wanted `shadow` first"
        shares = [stage for stage in self.stages[1:] if not isinstance(stage, str)]
        if len(shares) != len(self.stages) - 1:
            yield "stages: found `shadow` twice, wanted percents after the first one"
        if any(not 0 < share <= 100 for share in shares) or sorted(set(shares)) != shares:
            yield f"stages: found {shares}, wanted rising percents over 0 up to 100"
        else:
            yield from (f"stages: {problem}" for problem in map(_unusable, shares) if problem)
        signals = [guardrail.signal for guardrail in self.guardrails]
        if len(set(signals)) != len(signals):
            yield "guardrails: found a signal twice, wanted each once"
        late = [guardrail for guardrail in self.guardrails if guardrail.signal in LATENCY]
        factors = {guardrail.factor for guardrail in late}
        if len(factors) > 1:
            yield f"guardrails: found the factors {sorted(factors)}, wanted the same for both"
        if not PROVED & set(signals):
            yield "guardrails: wanted displacement or harm, for promotion is proved by them"
        total = sum(guardrail.share or 0.0 for guardrail in self.guardrails)
        if total > 1 + 1e-9:
            yield f"guardrails: found shares of {total:g} in sum, wanted at most 1"

    @property
    def guard_alpha(self) -> float:
        """This candidate's part of alpha."""
        return self.alpha / self.candidates

    @property
    def shares(self) -> tuple[float, ...]:
        """Percent of live traffic of each stage; `shadow` has 0."""
        return tuple(0.0 if stage == SHADOW else float(stage) for stage in self.stages)

    def has_slice(self, name: str) -> bool:
        """Whether requests of a slice may be in the scope."""
        return self.scope is None or self.scope.has_slice(name)

    def guardrail(self, signal: Signal) -> Guardrail | None:
        """The guardrail of a signal; None: it has none."""
        own = (guardrail for guardrail in self.guardrails if guardrail.signal is signal)
        return next(own, None)


def _unusable(share: float) -> str | None:
    """The reason why a flag cannot give this share; None: it can."""
    try:
        basis_points(share)
    except ValueError as error:
        return f"found {share:g}, wanted {error}"
    return None
