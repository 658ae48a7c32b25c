"""Spans of rollout changes and rollbacks; always sampled, for they are rare.

A rollback's span is the root of its trace, and the change that began it is its child.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penumbra.deployments.actors import actor_class
from penumbra.deployments.rollouts.change_text import change_of
from penumbra.deployments.rollouts.payload import RolloutPayload, takes_away
from penumbra.deployments.rollouts.record import Verdict
from penumbra.deployments.store.observation_tables import RollbackTimes
from penumbra.monitoring.tracing.context import TraceContext
from penumbra.monitoring.tracing.span import Span, SpanEvent, SpanKind
from penumbra.monitoring.tracing.tracer import Tracer, unix_ns

_UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class CommittedChange:
    """A change of a rollout that is durable."""

    epoch: int
    actor: str
    payload: RolloutPayload
    began_at: float
    """Monotonic seconds at which its commit began."""
    durable_at: float
    """Monotonic seconds at which it was in the store."""


def trace_change(tracer: Tracer | None, change: CommittedChange) -> TraceContext | None:
    """Record the span of a change of a rollout.

    Args:
        tracer: None: tracing is off.
        change: The change.

    Returns:
        The context of the change. If it takes traffic away: the context of the rollback, which
        `trace_rollback` records. None if tracing is off.
    """
    if tracer is None:
        return None
    root = tracer.root()
    is_away = takes_away(change.payload)
    ns = tracer.clock()
    after = change.payload.after
    tracer.record(
        Span(
            name="rollout change",
            kind=SpanKind.INTERNAL,
            context=tracer.child(root) if is_away else root,
            parent=root if is_away else None,
            began_ns=ns(change.began_at),
            ended_ns=ns(change.durable_at),
            attributes={
                **_names(after.spec.model, after.spec.candidate, change.epoch),
                "penumbra.change": change_of(change.payload),
                "penumbra.stage": after.stage,
                "penumbra.verdict": _verdict(after.record.verdict),
                "penumbra.actor_kind": actor_class(change.actor),
            },
        )
    )
    return root


def trace_rollback(
    tracer: Tracer | None,
    context: TraceContext | None,
    payload: RolloutPayload,
    times: RollbackTimes,
    now: datetime,
) -> None:
    """Record the span of a rollback or a quarantine, once its times are known.

    Args:
        tracer: None: tracing is off.
        context: Result of `trace_change`.
        payload: The payload of its event.
        times: When it was observed, durable and acknowledged.
        now: When the wait for the gateways was over.
    """
    if tracer is None or context is None:
        return
    began = times.durable_at if times.observed_at is None else times.observed_at
    ended = now.timestamp() if times.acknowledged_at is None else times.acknowledged_at
    decided = payload.decided
    attributes = _names(times.model, times.candidate, times.epoch)
    attributes["penumbra.action"] = "rollback" if decided is None else decided.action
    attributes["penumbra.gateways"] = times.gateways
    attributes["penumbra.is_acknowledged"] = times.acknowledged_at is not None
    if decided is not None:
        attributes["penumbra.pairs"] = decided.pairs
        attributes["penumbra.culprits"] = list(decided.culprits)
        known = {
            "penumbra.signal": decided.signal,
            "penumbra.evidence": decided.evidence,
            "penumbra.boundary": decided.boundary,
        }
        attributes |= {name: value for name, value in known.items() if value is not None}
    tracer.record(
        Span(
            name="rollback",
            kind=SpanKind.INTERNAL,
            context=context,
            parent=None,
            began_ns=unix_ns(began),
            ended_ns=unix_ns(max(began, ended)),
            attributes=attributes,
            happenings=(SpanEvent("durable", unix_ns(times.durable_at)),),
        )
    )


def _names(model: str, candidate: str, epoch: int) -> dict[str, Any]:
    return {
        "penumbra.model": model,
        "penumbra.candidate": candidate,
        "penumbra.epoch": epoch,
    }


def _verdict(verdict: Verdict | None) -> str:
    return _UNDECIDED if verdict is None else verdict.value
