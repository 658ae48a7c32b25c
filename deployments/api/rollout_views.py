"""Views of rollouts for the admin API.

Intervals are computed last, and in a thread: for twenty slices that takes tens of milliseconds, and
the folding of reports would have to wait.

Reading order: rollout_view.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from penumbra.deployments.api.channel_views import channel_views
from penumbra.deployments.api.latency_views import latency_fields
from penumbra.deployments.api.proof_views import effect_view, proof_view, workload_views
from penumbra.deployments.api.rollout_schemas import (
    AdvanceConditionView,
    DiagnosticsView,
    GraduationView,
    InstrumentView,
    RollbackView,
    RolloutSummary,
    RolloutView,
)
from penumbra.deployments.api.signal_schemas import (
    SignalView,
    StreamView,
)
from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor
from penumbra.deployments.evidence.kind_guards import Kind
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.config_effects import obstacle_of
from penumbra.deployments.history.graduation import measured_against
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.gates import advance_conditions
from penumbra.deployments.rollouts.record import (
    Arbitration,
    Graduation,
    Phase,
    Rollout,
    stage_name,
)
from penumbra.deployments.rollouts.spec import Guardrail
from penumbra.deployments.rollouts.transitions import next_stage_index
from penumbra.deployments.store.observation_tables import RollbackTimes
from penumbra.monitoring.observations import AnsweredBy
from penumbra.monitoring.stats.guard import StreamView as Stream


def summary_view(rollout: Rollout, evidence: RunEvidence) -> RolloutSummary:
    """Makes the view of one rollout in a list."""
    record = rollout.record
    return RolloutSummary(
        model=rollout.spec.model,
        candidate=rollout.spec.candidate,
        stage=rollout.stage,
        is_held=record.held is not None,
        held_cause=record.held.cause if record.held else None,
        frozen_cause=record.frozen,
        verdict=record.verdict.value if record.verdict else None,
        verdict_awaits=_awaits(record.arbitration, evidence),
        share=rollout.share,
        since=record.since,
        cause=record.cause,
        scope=None if rollout.spec.scope is None else rollout.spec.scope.text,
        run=record.run,
        pairs=sum(evidence.pairs.values()),
        proven=list(record.proven),
        proven_live=list(record.proven_live),
        quarantined=list(record.quarantined),
        stale=dict(record.stale),
    )


def _awaits(plan: Arbitration | None, evidence: RunEvidence) -> str | None:
    if plan is None:
        return None
    pairs = plan.pairs(evidence.instrument.pairs.get(plan.signal, {}))
    where = f" in {', '.join(plan.slices)}" if plan.slices else ""
    return f"the baseline is compared with itself in {plan.signal}{where}: {pairs} pairs so far"


def rollout_view(
    state: State,
    rollout: Rollout,
    evidence: RunEvidence,
    last: RollbackView | None,
) -> Callable[[], RolloutView]:
    """Captures one rollout as it is now; returns the function that makes the whole view.

    The function takes tens of milliseconds: it is to be called in a thread.
    """
    spec, record = rollout.spec, rollout.record
    obstacle = obstacle_of(state, rollout)
    conditions = advance_conditions(spec, record, evidence.findings(), obstacle)
    summary = summary_view(rollout, evidence).model_dump()
    signals = [_guardrail_view(guardrail, evidence) for guardrail in spec.guardrails]
    instrument, diagnostics = _instrument_view(evidence), _diagnostics_view(evidence)
    fingerprints, proof = dict(evidence.builds.fingerprints), proof_view(evidence)
    builds = {variant: dict(facts) for variant, facts in evidence.builds.facts.items()}
    reference = measured_against(state, rollout)
    model_alpha = state.guard_alpha(spec.model)
    channels, workload = channel_views(rollout, evidence), workload_views(evidence)
    return lambda: RolloutView(
        **summary,
        epoch=state.epoch,
        spec=spec,
        slices=list(record.slices),
        signals=[view() for view in signals],
        proof=proof,
        guard_alpha=spec.guard_alpha,
        model_alpha=model_alpha,
        gates=[
            AdvanceConditionView(
                name=condition.name,
                is_met=condition.is_met,
                found=condition.found,
                wanted=condition.wanted,
            )
            for condition in conditions
        ],
        next_stage=_next_stage(rollout),
        instrument=instrument(),
        diagnostics=diagnostics,
        channels=channels,
        workload=workload,
        fingerprints=fingerprints,
        builds=builds,
        calibration=record.calibration,
        last_rollback=last,
        graduated=_graduation_view(record.graduated),
        measured_against=reference,
    )


def _graduation_view(found: Graduation | None) -> GraduationView | None:
    if found is None:
        return None
    return GraduationView(baseline=found.baseline, kept_until=found.kept_until)


def rollback_view(
    epoch: int,
    at: datetime,
    cause: str,
    observed_at: float | None,
    times: RollbackTimes | None,
) -> RollbackView:
    """Makes the view of the times of a rollback."""
    to_durable = to_acknowledged = None
    if times is not None and observed_at is not None:
        to_durable = _milliseconds(times.durable_at - observed_at)
    if times is not None and times.acknowledged_at is not None:
        to_acknowledged = _milliseconds(times.acknowledged_at - times.durable_at)
    return RollbackView(
        epoch=epoch,
        at=at,
        cause=cause,
        observed_at=None if observed_at is None else datetime.fromtimestamp(observed_at, UTC),
        observed_to_durable_ms=to_durable,
        durable_to_acknowledged_ms=to_acknowledged,
        gateways=times.gateways if times else 0,
    )


def _next_stage(rollout: Rollout) -> str | None:
    if rollout.record.phase not in {Phase.SHADOW, Phase.LIVE}:
        return None
    index = next_stage_index(rollout.spec, rollout.record)
    if index is None:
        return None
    if index == rollout.record.stage_index:
        return Phase.PROMOTED.value
    return stage_name(rollout.spec, index)


def _guardrail_view(guardrail: Guardrail, evidence: RunEvidence) -> Callable[[], SignalView]:
    monitor, alpha = evidence.monitors[guardrail.signal], evidence.proofs.alpha
    awaited = {kind: evidence.awaited(guardrail.signal, kind) for kind in monitor.kinds}
    view = _monitor_view(monitor, alpha, awaited, evidence.wanted_pairs)
    latency = latency_fields(guardrail.signal, evidence)
    return lambda: view().model_copy(update=latency)


def _monitor_view(
    monitor: GuardrailMonitor,
    proof_alpha: float,
    awaited: Mapping[Kind, Mapping[str, int]] | None = None,
    wanted: int = 0,
) -> Callable[[], SignalView]:
    """Makes the view of a monitor.

    Args:
        monitor: The monitor.
        proof_alpha: A stream alone is proven at 1 / this.
        awaited: Kind of pair -> slice -> pairs so far, of those whose tolerance is being read.
        wanted: Pairs from which it is read.
    """
    awaited = awaited or {kind: {} for kind in monitor.kinds}
    tripped = monitor.tripped
    culprits = [*monitor.quarantined, *(tripped.culprits if tripped else ())]
    boundary = monitor.boundary
    # Nothing is bet on before the first tolerance is read.
    is_watching = any(len(each) < len(monitor.spec.tolerances) for each in awaited.values())
    evidence = monitor.evidence if is_watching else 0.0
    aggregate = monitor.guard.aggregate() if is_watching else None
    slices = _slices(monitor, awaited)
    progress = _progress(awaited, wanted)
    return lambda: SignalView(
        signal=monitor.signal.value,
        action=monitor.action,
        alpha=monitor.spec.alpha,
        evidence=evidence,
        boundary=boundary,
        horizon=monitor.spec.horizon,
        proof_boundary=1.0 / proof_alpha,
        is_tripped=tripped is not None,
        culprits=list(dict.fromkeys(culprits)),
        calibrating=progress,
        aggregate=None if aggregate is None else _stream_view(None, aggregate, proof_alpha),
        slices=[_stream_view(name, stream, proof_alpha, kind) for kind, name, stream in slices],
    )


def _slices(
    monitor: GuardrailMonitor, awaited: Mapping[Kind, Mapping[str, int]]
) -> list[tuple[Kind, str, Stream]]:
    """List the streams that are judged; those of the candidate's answers once there are any."""
    found = [
        (kind, name, monitor.guard.of(kind).slice(name))
        for kind in monitor.kinds
        for name in monitor.spec.tolerances
        if name not in awaited[kind]
    ]
    return [each for each in found if each[0] is not AnsweredBy.CANDIDATE or each[2].count]


def _progress(awaited: Mapping[Kind, Mapping[str, int]], wanted: int) -> str | None:
    """Tell how far the tolerances are read; where the candidate answered, once it has."""
    parts = []
    for kind, counts in awaited.items():
        if not counts or (kind is AnsweredBy.CANDIDATE and not any(counts.values())):
            continue
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        where = "answered by the candidate: " if kind is AnsweredBy.CANDIDATE else ""
        parts.append(f"{where}{told} of {wanted} pairs each")
    return "; ".join(parts) or None


def _stream_view(
    name: str | None, stream: Stream, proof_alpha: float, kind: Kind = None
) -> StreamView:
    has_any = stream.count > 0
    return StreamView(
        slice=name,
        answered_by=None if kind is None else kind.value,
        count=stream.count,
        mean=stream.mean,
        tolerance=stream.tolerance,
        evidence=stream.evidence,
        proof=stream.proof,
        is_proven=stream.proof >= 1.0 / proof_alpha,
        lower=stream.lower if has_any else None,
        upper=stream.upper if has_any else None,
        effect=effect_view(name, stream) if stream.is_suspicious else None,
    )


def _instrument_view(evidence: RunEvidence) -> Callable[[], InstrumentView]:
    last = evidence.instrument.self_tests.last
    mistrust, alpha = evidence.mistrust, evidence.spec.promotion_alpha
    monitors = [_monitor_view(monitor, alpha) for monitor in evidence.instrument.aa.values()]
    return lambda: InstrumentView(
        is_ok=mistrust is None,
        detail=mistrust,
        aa=[view() for view in monitors],
        last_self_test_at=None if last is None else datetime.fromtimestamp(last.at, UTC),
        last_self_test_gap=None if last is None else last.largest_gap,
    )


def _diagnostics_view(evidence: RunEvidence) -> DiagnosticsView:
    totals = evidence.totals
    return DiagnosticsView(
        kl=totals.mean("kl"),
        agreement=totals.mean("agreement"),
        divergence=totals.mean("divergence"),
        own_gap=totals.mean("own_gap"),
        baseline_gap=totals.mean("baseline_gap"),
        engine_seconds=float(totals.sums["engine_seconds"]),
        missing_ratio=totals.missing_ratio,
        repeats=totals.repeats,
        outside_scope=totals.outside,
        sheds=dict(totals.sheds),
        failed_checks=dict(totals.failed),
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
