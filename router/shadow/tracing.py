"""Spans of one comparison: a trace of its own, linked to the mirrored request, if that was traced.

The client had its answer long before, so the comparison is no part of its request's trace.
"""

from collections.abc import Callable, Iterator
from typing import Any

from penumbra.monitoring.observations import Arm, Pair
from penumbra.monitoring.tracing.context import TraceContext, read_traceparent
from penumbra.monitoring.tracing.span import Span, SpanKind
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.shadow.comparison_result import ComparisonResult, EngineCall


def trace_comparison(
    tracer: Tracer | None, mirrored: MirrorFrame, result: ComparisonResult, began: float
) -> None:
    """Record the spans of a comparison.

    Args:
        tracer: Records the spans; None: tracing is off.
        mirrored: The request.
        result: The result of the comparison.
        began: Begin of the comparison; monotonic seconds.
    """
    if tracer is None or not mirrored.trace:
        return
    request = read_traceparent(mirrored.trace.encode("latin-1"))
    if request is None or not request.is_sampled:
        return
    now, ns = tracer.now(), tracer.clock()
    root = tracer.root()
    candidates = (*result.pairs, *result.sheds)
    # One span for each candidate, in one trace; calls made once for all are below the first.
    contexts = {
        name: root if number == 0 else tracer.child(root) for number, name in enumerate(candidates)
    }
    for call in result.calls:
        tracer.record(
            _call_span(call, tracer.child(root), contexts.get(call.variant, root), began, ns)
        )
    for candidate, context in contexts.items():
        tracer.record(
            Span(
                name="shadow pair",
                kind=SpanKind.INTERNAL,
                context=context,
                parent=None,
                began_ns=ns(began),
                ended_ns=ns(now),
                attributes=_attributes(mirrored, candidate, result),
                links=(request,),
            )
        )


def _call_span(
    call: EngineCall,
    context: TraceContext,
    parent: TraceContext,
    began: float,
    ns: Callable[[float], int],
) -> Span:
    name = call.variant
    attributes: dict[str, Any] = {"penumbra.variant": name, "penumbra.is_again": call.is_again}
    if call.problem is not None:
        attributes["error.type"] = call.problem
    return Span(
        name=f"{call.work} {name}",
        kind=SpanKind.CLIENT,
        context=context,
        parent=parent,
        began_ns=ns(began),
        ended_ns=ns(began + call.seconds),
        attributes=attributes,
        is_error=call.problem is not None,
    )


def _attributes(mirrored: MirrorFrame, candidate: str, result: ComparisonResult) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "penumbra.model": mirrored.model,
        "penumbra.candidate": candidate,
        "penumbra.slice": mirrored.slice,
        "penumbra.epoch": mirrored.epoch,
        "penumbra.request_id": mirrored.request_id,
        "penumbra.variant": mirrored.variant,
        "penumbra.engine_seconds": result.engine_seconds,
    }
    if candidate in result.sheds:
        attributes["penumbra.shed_reason"] = result.sheds[candidate].value
    for pair in result.pairs.get(candidate, ()):
        attributes |= dict(_figures(pair))
    return attributes


def _figures(pair: Pair) -> Iterator[tuple[str, Any]]:
    if pair.arm is Arm.BASELINE:
        if pair.displacement is not None:
            yield "penumbra.aa_displacement", pair.displacement
        return
    yield "penumbra.tokens", pair.tokens
    for name in ("displacement", "kl", "agreement", "harm", "missing"):
        value = getattr(pair, name)
        if value is not None:
            yield f"penumbra.{name}", value
    if pair.failed:
        yield "penumbra.failed_checks", list(pair.failed)
