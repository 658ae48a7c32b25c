"""Schemas of the rollout routes; `penumbra.deployments.api.rollout_views` fills them in."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from penumbra.deployments.api.flag_schemas import GatewaysReached, ReasonBody
from penumbra.deployments.api.signal_schemas import EffectView, ProofView, SignalView
from penumbra.deployments.config import error_words
from penumbra.deployments.rollouts.spec import RolloutSpec


def _from_json(value: object) -> RolloutSpec:
    # Strict validation takes a list for a tuple only from JSON.
    if isinstance(value, RolloutSpec):
        return value
    try:
        return RolloutSpec.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError("; ".join(error_words.problems(error, RolloutSpec))) from error


_EXAMPLE = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 1.0, 25.0, 100.0],
    "guardrails": [
        {"signal": "displacement", "tolerance": 0.05, "action": "rollback", "share": 0.6},
        {"signal": "failure", "tolerance": 0.01, "action": "rollback", "share": 0.4},
    ],
}


class ApplyBody(ReasonBody):
    """A rollout to begin, or to begin anew with another spec."""

    spec: Annotated[RolloutSpec, BeforeValidator(_from_json), Field(examples=[_EXAMPLE])]


class AdvanceConditionView(BaseModel):
    """One condition of the next advance."""

    name: str
    is_met: bool
    found: str
    wanted: str


class InstrumentView(BaseModel):
    """Whether the measurement itself can be trusted."""

    is_ok: bool
    detail: str | None
    aa: list[SignalView]
    """Signals of the baseline against itself."""
    last_self_test_at: datetime | None
    last_self_test_gap: float | None


class DiagnosticsView(BaseModel):
    """Figures that are reported but never tested."""

    kl: float | None
    agreement: float | None
    divergence: float | None
    """Mean index of the first token on which the arms would differ, over the pairs that differ."""
    own_gap: float | None = None
    """Mean gap between the candidate's decoding and its own prefill, in [0, 1]."""
    baseline_gap: float | None = None
    """The same of the baseline: the floor."""
    engine_seconds: float
    missing_ratio: float
    repeats: int
    """Pairs that were not bet on, because their prompt or session had its bet."""
    outside_scope: int = 0
    """Pairs of slices outside of the rollout's scope, which count for nothing."""
    sheds: dict[str, int]
    failed_checks: dict[str, int]
    """Harm check -> pairs in which the candidate failed it and the baseline did not."""


class RolloutSummary(BaseModel):
    """One rollout in a list."""

    model: str
    candidate: str
    stage: str
    """`shadow`, `1`, `5`, ... (percent), `promoted`, `rolled_back`, `off`."""
    is_held: bool
    held_cause: str | None
    frozen_cause: str | None
    """Reason why nothing is promoted although no hold is set: the instrument is broken."""
    verdict: str | None
    """`pass`, `fail`, `inconclusive`, `error`; null if not decided yet."""
    verdict_awaits: str | None = None
    """After a rollback: what the verdict waits for until it is final; null: nothing."""
    share: float
    """Percent of live traffic that the flag gives the candidate now."""
    since: datetime
    """Time at which the stage began."""
    cause: str
    """Cause of the last change."""
    scope: str | None = None
    """The requests that the rollout is about, in words; null: all."""
    run: str
    pairs: int
    proven: list[str]
    proven_live: list[str] = []
    """Slices that are proven where the candidate answered, too; wanted before it answers most."""
    quarantined: list[str]
    stale: dict[str, str] = {}
    """Proven slices, `*` for all together, whose workload has left what they were proven on, and
    how. They keep their traffic; no advance until they are proven anew."""


class WorkloadView(BaseModel):
    """One feature of the traffic, beside what the proof was made on."""

    slice: str
    """`*`: all slices together."""
    feature: str
    """`slices`, `script`, `prompt length`."""
    pairs: int
    """Pairs of the proof's profile; 0 until there is one."""
    distance: float | None
    """Total variation between the latest pairs and the profile, in [0, 1]; null without one."""


class ChannelView(BaseModel):
    """One channel of a slice: a route with a modality, and whether the candidate may get it."""

    slice: str
    channel: str
    """`responses` for texts, `chat+image` for images by chat."""
    pairs: int
    signals: list[str]
    """Signals that it is judged by; empty if it cannot be compared."""
    is_released: bool
    why: str | None
    """Why it stays on the baseline; null if it is released."""


class GraduateBody(ReasonBody):
    """Terms of a graduation."""

    keep_days: float = Field(default=7.0, ge=0, le=3650)
    """Days for which the baseline of now is to stay in the configuration for a rollback."""
    accept_unproven: bool = False
    """Whether requests for which the candidate was never proven may go to it, too."""


class GraduationView(BaseModel):
    """Graduation of a candidate, which is the baseline now."""

    baseline: str
    """The baseline before, to which a rollback goes."""
    kept_until: datetime


class RolloutsView(BaseModel):
    """All rollouts."""

    epoch: int
    rollouts: list[RolloutSummary]


class RollbackView(BaseModel):
    """Times of a rollback. Times of day are those of the clocks of the processes involved."""

    epoch: int
    at: datetime
    cause: str
    observed_at: datetime | None
    """Time of the deciding observation; null if a person rolled back."""
    observed_to_durable_ms: float | None
    durable_to_acknowledged_ms: float | None
    """Time to the last acknowledgement; null unless every connected gateway acknowledged."""
    gateways: int


class RolloutView(RolloutSummary):
    """Everything about one rollout."""

    epoch: int
    spec: RolloutSpec
    slices: list[str]
    signals: list[SignalView]
    proof: ProofView | None = None
    guard_alpha: float = 0.0
    """Bound on the probability that this run is falsely rolled back within its horizon."""
    model_alpha: float = 0.0
    """The same of any candidate of the model that is under guard now: the sum."""
    gates: list[AdvanceConditionView]
    """Conditions of the next advance; once all are met, it happens at the next tick."""
    next_stage: str | None
    instrument: InstrumentView
    diagnostics: DiagnosticsView
    channels: list[ChannelView]
    """Channels of each slice, compared or not; what is not released stays on the
    baseline at every stage."""
    workload: list[WorkloadView] = []
    fingerprints: dict[str, str]
    builds: dict[str, dict[str, str]]
    """Variant -> facts of its build, of which the fingerprint is made."""
    calibration: dict[str, Any] | None
    """Tolerances that were read from the first pairs, and their derivation."""
    last_rollback: RollbackView | None
    graduated: GraduationView | None = None
    """Set if the candidate is the baseline now."""
    measured_against: str | None = None
    """Set if the baseline was a candidate itself: tolerances add up."""


class RolloutChangeView(BaseModel):
    """Result of a change of a rollout."""

    epoch: int
    changed: bool
    gateways: GatewaysReached
    propagation_ms: float | None
    """Time from its commit to the last acknowledgement; null unless every gateway acknowledged."""
    rollout: RolloutSummary


class PathPoint(BaseModel):
    """Evidence after a number of observations."""

    count: int
    evidence: float


class WorstPair(BaseModel):
    """One of the candidate's worst pairs; ids and figures, no text."""

    request_id: str
    slice: str
    displacement: float | None
    harm: int | None
    failed: list[str]
    failed_baseline: list[str]
    missing: str | None


class ExplainView(BaseModel):
    """Explanation of a rollback or quarantine, from the stored events and reports."""

    model: str
    candidate: str
    action: Literal["rollback", "quarantine"]
    epoch: int
    at: datetime
    actor: str
    cause: str
    scope: str | None = None
    """The requests that the rollout is about, in words; null: all."""
    run: str
    earlier_runs: int | None = None
    """Earlier runs of the same builds that could prove a slice."""
    signal: str | None
    """Signal of the guardrail; null if a person rolled back."""
    detail: str | None
    evidence: float | None
    boundary: float | None
    path: list[PathPoint]
    pairs: int
    """Mirrored requests up to the decision."""
    culprits: list[str]
    """Slices that are named with a false discovery rate of 10 %."""
    suspect: str | None
    """The slice with the most evidence: a hint."""
    answered_by: str | None = None
    """`baseline` or `candidate`: who answered in the pairs with the most evidence."""
    effects: list[EffectView] = []
    """Effects since their onset: of the culprits, or of the suspect, and of all slices together."""
    worst: list[WorstPair]
    times: RollbackView | None
    recomputed_verdict: str | None
    recomputed_evidence: float | None
    is_reproduced: bool | None
    """Whether folding the stored observations anew gives the same decision; null if a person
    decided, because then there is nothing to fold, and if they were pruned."""
    is_pruned: bool = False
    """Whether observations that the decision was made by were deleted because of their age
    (`control.report_days`), so that it cannot be made again."""
    pruned_before: datetime | None = None
    """Time before which the run's observations were deleted; null: they are all there."""
