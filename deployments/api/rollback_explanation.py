"""Explanation of a rollback or quarantine: the stored facts, and the verdict computed anew.

It is computed from the stored reports, and from the base that stands for those that were deleted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isclose

import sqlalchemy as sa

from penumbra.deployments.api.proof_views import effect_view
from penumbra.deployments.api.rollout_schemas import (
    ExplainView,
    PathPoint,
    RollbackView,
    WorstPair,
)
from penumbra.deployments.api.rollout_views import rollback_view
from penumbra.deployments.api.signal_schemas import (
    EffectView,
)
from penumbra.deployments.control.kept_folds import BaseLost, evidence_from_base
from penumbra.deployments.errors import NotFound
from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor, alpha_of
from penumbra.deployments.evidence.judge import (
    decided_by,
    evidence_of,
    fold_stored_reports,
    name_of,
)
from penumbra.deployments.evidence.kind_guards import PAIRS, UNDIVIDED, PairKinds
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.history.events import Event, Kind
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.payload import Decided, RolloutPayload, takes_away
from penumbra.deployments.rollouts.record import Key, Rollout
from penumbra.deployments.rollouts.spec import LATENCY, QUALITY, RolloutSpec
from penumbra.deployments.store import base_table, observation_tables
from penumbra.deployments.store.base_table import Base
from penumbra.deployments.store.observation_tables import RollbackTimes
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import AnsweredBy, Pair, Report, Signal


@dataclass(frozen=True, slots=True)
class _Case:
    """One event that took traffic from a candidate."""

    event: Event
    payload: RolloutPayload


def explain(store: Store, key: Key, base_key: bytes | None = None) -> ExplainView:
    """Explains the last rollback or quarantine of a candidate; to be called in a thread.

    Args:
        store: The store.
        key: (model, candidate).
        base_key: Key that bases are signed with; None: none can be read.

    Raises:
        NotFound: There was none.
        StoreUnavailable: The store cannot be read.
    """
    case = _last(store, key)
    if case is None:
        raise NotFound(f"{key[1]} ({key[0]}) was never rolled back or quarantined")
    return store.look(lambda connection: _explain(connection, case, base_key))


def last_rollback(store: Store, key: Key) -> RollbackView | None:
    """Reads the times of the last rollback or quarantine; None if there was none."""
    case = _last(store, key)
    if case is None:
        return None
    return _times_view(case, store.look(lambda c: observation_tables.times_of(c, case.event.epoch)))


def refold(
    rollout: Rollout,
    reports: Iterable[Report],
    kinds: PairKinds = PAIRS,
    *,
    has_floors: bool = True,
) -> RunEvidence:
    """Computes the evidence of a rollout's run from its reports alone.

    Args:
        rollout: The rollout.
        reports: Stored reports, in order.
        kinds: Kinds of pairs that are told apart.
        has_floors: Whether latencies are judged beside shadow answers too.
    """
    return fold_stored_reports(evidence_of(rollout, kinds, has_floors=has_floors), reports)


def _last(store: Store, key: Key) -> _Case | None:
    for event in store.backwards(key[0], Kind.ROLLOUT):
        payload = event.payload
        if not isinstance(payload, RolloutPayload) or payload.after.key != key:
            continue
        if takes_away(payload):
            return _Case(event, payload)
    return None


def _explain(connection: sa.Connection, case: _Case, base_key: bytes | None) -> ExplainView:
    event, payload = case.event, case.payload
    decided, before = payload.decided, payload.before or payload.after
    times = observation_tables.times_of(connection, event.epoch)
    base = base_table.used(connection, before.record.run)
    is_pruned = False
    try:
        evidence = _fold_again(connection, before, decided, base, base_key)
    except BaseLost:
        evidence, is_pruned = evidence_of(before), True
    monitor = None if is_pruned else _deciding_monitor(evidence, decided)
    verdict, recomputed = (None, None) if is_pruned else _decide_again(case, before, evidence)
    counted = decided.pairs if is_pruned and decided else sum(evidence.pairs.values())
    return ExplainView(
        model=before.spec.model,
        candidate=before.spec.candidate,
        action=decided.action if decided else "rollback",
        epoch=event.epoch,
        at=event.at,
        actor=event.actor,
        cause=event.reason,
        scope=None if before.spec.scope is None else before.spec.scope.text,
        run=before.record.run,
        earlier_runs=evidence.proofs.earlier_runs,
        signal=decided.signal if decided else None,
        detail=decided.detail if decided else None,
        evidence=decided.evidence if decided else None,
        boundary=decided.boundary if decided else None,
        path=_path(monitor, decided),
        pairs=counted,
        culprits=list(decided.culprits) if decided else [],
        suspect=decided.suspect if decided else None,
        answered_by=decided.answered_by if decided else None,
        effects=_effects(monitor, decided),
        worst=[_worst(pair) for pair in evidence.totals.worst],
        times=_times_view(case, times),
        recomputed_verdict=verdict,
        recomputed_evidence=recomputed.evidence if recomputed else None,
        is_reproduced=None if decided is None or is_pruned else recomputed == decided,
        is_pruned=is_pruned,
        pruned_before=None if base is None else base.at,
    )


def _fold_again(
    connection: sa.Connection,
    before: Rollout,
    decided: Decided | None,
    base: Base | None,
    base_key: bytes | None,
) -> RunEvidence:
    """Compute the evidence of a run up to the report that decided.

    Raises:
        BaseLost: Reports that are needed were deleted, and the base does not stand for them.
    """
    kinds, has_floors = _kinds_of(decided), _has_floors(decided, before.spec)
    until = None if decided is None else decided.report
    if base is None:
        reports = observation_tables.reports(connection, before.record.run, until)
        return refold(before, reports, kinds, has_floors=has_floors)
    if kinds != PAIRS or not has_floors:
        raise BaseLost("the decision is of a release that keeps evidence in another form")
    evidence, position = evidence_from_base(base, base_key, before)
    last = None
    for report in observation_tables.reports(connection, evidence.run, until, after=position):
        fold_stored_reports(evidence, [report])
        last = name_of(report)
    if until is not None and last != until:
        raise BaseLost("the deciding report lies before the base")
    return evidence


def _kinds_of(decided: Decided | None) -> PairKinds:
    """Return the kinds of pairs that were told apart by the version that decided."""
    if decided is None or decided.signal not in QUALITY or decided.answered_by is not None:
        return PAIRS
    return UNDIVIDED


def _has_floors(decided: Decided | None, spec: RolloutSpec) -> bool:
    """Tell whether the version that decided read floors of latencies: from its boundary."""
    if decided is None or decided.boundary is None or decided.signal not in LATENCY:
        return True
    guardrail = spec.guardrail(Signal(decided.signal))
    return guardrail is None or not isclose(decided.boundary, 1 / alpha_of(spec, guardrail))


def _decide_again(
    case: _Case, before: Rollout, evidence: RunEvidence
) -> tuple[str | None, Decided | None]:
    """Makes the decision anew; returns the verdict, and the description of the decision."""
    decided = case.payload.decided
    if decided is None:
        return None, None
    findings = evidence.findings()
    record, steps = decide(before.spec, before.record, findings, case.event.at)
    again = decided_by(steps, evidence, findings, decided.report)
    return record.verdict, again


def _deciding_monitor(evidence: RunEvidence, decided: Decided | None) -> GuardrailMonitor | None:
    if decided is None or decided.signal not in set(Signal):
        return None
    return evidence.monitors.get(Signal(decided.signal))


def _path(monitor: GuardrailMonitor | None, decided: Decided | None) -> list[PathPoint]:
    if monitor is None or decided is None:
        return []
    points = [PathPoint(count=count, evidence=value) for count, value in monitor.path.points]
    # After a quarantine the path begins anew, perhaps within the deciding report: drop that part.
    while points and points[-1].evidence != decided.evidence:
        points.pop()
    return points


def _effects(monitor: GuardrailMonitor | None, decided: Decided | None) -> list[EffectView]:
    if monitor is None or decided is None:
        return []
    named = decided.culprits or ((decided.suspect,) if decided.suspect else ())
    # Each kind of pair has tolerances and a history of its own.
    told = decided.answered_by
    kind = None if told is None else AnsweredBy(told)
    views = [effect_view(name, monitor.guard.slice(name, kind)) for name in named]
    views.append(effect_view(None, monitor.guard.aggregate(kind)))
    return [view for view in views if view is not None]


def _worst(pair: Pair) -> WorstPair:
    return WorstPair(
        request_id=pair.request_id,
        slice=pair.slice,
        displacement=pair.displacement,
        harm=pair.harm,
        failed=list(pair.failed),
        failed_baseline=list(pair.failed_baseline),
        missing=pair.missing,
    )


def _times_view(case: _Case, times: RollbackTimes | None) -> RollbackView:
    decided = case.payload.decided
    observed_at = decided.observed_at if decided else None
    event = case.event
    return rollback_view(event.epoch, event.at, event.reason, observed_at, times)
