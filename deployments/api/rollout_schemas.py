"""What the admin API says of rollouts. `penumbra.deployments.api.rollout_views` fills it in."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ValidationError

from penumbra.deployments.api.flag_schemas import ReasonBody
from penumbra.deployments.config import error_words
from penumbra.deployments.rollouts.spec import RolloutSpec

Verb = Literal["promote", "hold", "resume", "rollback", "rearm", "end"]


def _from_json(value: object) -> RolloutSpec:
    # Strict validation takes a list for a tuple only from JSON.
    if isinstance(value, RolloutSpec):
        return value
    try:
        return RolloutSpec.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError("; ".join(error_words.problems(error, RolloutSpec))) from error


class ApplyBody(ReasonBody):
    """A rollout to begin, or to begin anew with another spec."""

    spec: Annotated[RolloutSpec, BeforeValidator(_from_json)]


class StreamView(BaseModel):
    """One signal in one slice (or over all: `slice` is null)."""

    slice: str | None
    count: int
    """Observations that were bet on."""
    mean: float | None
    tolerance: float
    evidence: float
    """Against the candidate; on the weighted average of all streams lies the boundary."""
    proof: float
    """For the candidate; proven at `proof_boundary`."""
    is_proven: bool
    lower: float | None
    upper: float | None
    """Interval of the mean that holds at all times together; null without observations."""


class SignalView(BaseModel):
    """One guardrail."""

    signal: str
    action: str
    alpha: float
    evidence: float
    boundary: float
    """The guardrail acts when `evidence` reaches it."""
    proof_boundary: float
    is_tripped: bool
    culprits: list[str]
    calibrating: str | None
    """`12 of 300 pairs` while the tolerance is being read; null otherwise."""
    aggregate: StreamView | None
    slices: list[StreamView]


class AdvanceConditionView(BaseModel):
    """One condition of the next advance."""

    name: str
    is_met: bool
    found: str
    wanted: str


class InstrumentView(BaseModel):
    """Whether the measuring itself can be trusted."""

    is_ok: bool
    detail: str | None
    aa: list[SignalView]
    """The baseline against itself."""
    last_self_test_at: datetime | None
    last_self_test_gap: float | None


class DiagnosticsView(BaseModel):
    """Reported, never tested."""

    kl: float | None
    agreement: float | None
    divergence: float | None
    """Mean index of the first token on which the arms would differ, where they do."""
    engine_seconds: float
    missing_ratio: float
    repeats: int
    """Pairs that were not bet on: their prompt or session had its bet."""
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
    """Why nothing is promoted although nobody holds it: the instrument is broken."""
    verdict: str | None
    """`pass`, `fail`, `inconclusive`, `error`; null: not decided yet."""
    share: float
    """Percent of live traffic that the flag gives the candidate now."""
    since: datetime
    """When the stage began."""
    cause: str
    """Of the last change."""
    run: str
    pairs: int
    proven: list[str]
    quarantined: list[str]


class RolloutsView(BaseModel):
    """All rollouts."""

    epoch: int
    rollouts: list[RolloutSummary]


class RollbackView(BaseModel):
    """How fast a rollback was. Times of day are of the clocks of the processes involved."""

    epoch: int
    at: datetime
    cause: str
    observed_at: datetime | None
    """The deciding observation; null if a person rolled back."""
    observed_to_durable_ms: float | None
    durable_to_acknowledged_ms: float | None
    """To the last gateway; null until, or unless, every connected one acknowledged."""
    gateways: int


class RolloutView(RolloutSummary):
    """Everything about one rollout."""

    epoch: int
    spec: RolloutSpec
    slices: list[str]
    signals: list[SignalView]
    gates: list[AdvanceConditionView]
    """Of the next advance; all met: it happens at the next tick."""
    next_stage: str | None
    instrument: InstrumentView
    diagnostics: DiagnosticsView
    fingerprints: dict[str, str]
    calibration: dict[str, Any] | None
    """Tolerances that were read from the first pairs, and how."""
    last_rollback: RollbackView | None


class RolloutChangeView(BaseModel):
    """What came of a verb."""

    epoch: int
    changed: bool
    rollout: RolloutSummary


class PathPoint(BaseModel):
    """The evidence after so many observations."""

    count: int
    evidence: float


class WorstPair(BaseModel):
    """A pair on which the candidate was worst; ids and figures, no text."""

    request_id: str
    slice: str
    displacement: float | None
    harm: int | None
    failed: list[str]
    failed_baseline: list[str]
    missing: str | None


class ExplainView(BaseModel):
    """Why the guard acted, from what is stored."""

    model: str
    candidate: str
    action: Literal["rollback", "quarantine"]
    epoch: int
    at: datetime
    actor: str
    cause: str
    run: str
    signal: str | None
    """The guardrail; null if a person rolled back."""
    detail: str | None
    evidence: float | None
    boundary: float | None
    path: list[PathPoint]
    pairs: int
    """Mirrored requests that it took."""
    culprits: list[str]
    """Slices that are named with a false discovery rate of 10 %."""
    suspect: str | None
    """The slice with the most evidence, named or not."""
    worst: list[WorstPair]
    times: RollbackView | None
    recomputed_verdict: str | None
    recomputed_evidence: float | None
    is_reproduced: bool | None
    """Whether folding the stored observations anew gives what was decided; null: there is nothing
    to fold, because a person decided."""
