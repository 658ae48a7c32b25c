"""The spans of what becomes of rollouts: always sampled, for they are rare.

A rollback's span is the root of its trace, and the change that began it is its child.
"""

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


def trace_change(
    tracer: Tracer | None,
    change: tuple[int, str, RolloutPayload],
    began: float,
    durable: float,
) -> TraceContext | None:
    """Record a change of a rollout.

    Args:
        tracer: None: tracing is off.
        change: Its epoch, who decided, and what the event says.
        began: When its commit began; monotonic seconds, as is `durable`.
        durable: When it was in the store.

    Returns:
        The context of the change; of one that takes traffic away, that of the rollback which
        `trace_rollback` records. None if tracing is off.
    """
    if tracer is None:
        return None
    epoch, actor, payload = change
    root = tracer.root()
    is_away = takes_away(payload)
    ns = tracer.clock()
    after = payload.after
    tracer.record(
        Span(
            name="rollout change",
            kind=SpanKind.INTERNAL,
            context=tracer.child(root) if is_away else root,
            parent=root if is_away else None,
            began_ns=ns(began),
            ended_ns=ns(durable),
            attributes={
                **_about(after.spec.model, after.spec.candidate, epoch),
                "penumbra.change": change_of(payload),
                "penumbra.stage": after.stage,
                "penumbra.verdict": _verdict(after.record.verdict),
                "penumbra.actor_kind": actor_class(actor),
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
    """Record that traffic was taken away, once it is known when.

    Args:
        tracer: None: tracing is off.
        context: See `trace_change`.
        payload: What the event says.
        times: When it was what.
        now: When the wait for the gateways was over.
    """
    if tracer is None or context is None:
        return
    began = times.durable_at if times.observed_at is None else times.observed_at
    ended = now.timestamp() if times.acknowledged_at is None else times.acknowledged_at
    decided = payload.decided
    about = _about(times.model, times.candidate, times.epoch)
    about["penumbra.action"] = "rollback" if decided is None else decided.action
    about["penumbra.gateways"] = times.gateways
    about["penumbra.is_acknowledged"] = times.acknowledged_at is not None
    if decided is not None:
        about["penumbra.pairs"] = decided.pairs
        about["penumbra.culprits"] = list(decided.culprits)
        known = {
            "penumbra.signal": decided.signal,
            "penumbra.evidence": decided.evidence,
            "penumbra.boundary": decided.boundary,
        }
        about |= {name: value for name, value in known.items() if value is not None}
    tracer.record(
        Span(
            name="rollback",
            kind=SpanKind.INTERNAL,
            context=context,
            parent=None,
            began_ns=unix_ns(began),
            ended_ns=unix_ns(max(began, ended)),
            attributes=about,
            happenings=(SpanEvent("durable", unix_ns(times.durable_at)),),
        )
    )


def _about(model: str, candidate: str, epoch: int) -> dict[str, Any]:
    return {
        "penumbra.model": model,
        "penumbra.candidate": candidate,
        "penumbra.epoch": epoch,
    }


def _verdict(verdict: Verdict | None) -> str:
    return _UNDECIDED if verdict is None else verdict.value
