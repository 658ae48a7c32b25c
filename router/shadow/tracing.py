"""The spans of one comparison, if the mirrored request was traced: linked to it, in a trace apart.

The client had its answer long before, so nothing here is part of its request.
"""

from collections.abc import Callable, Iterator
from typing import Any

from penumbra.monitoring.observations import Arm, Pair
from penumbra.monitoring.tracing.context import TraceContext, read_traceparent
from penumbra.monitoring.tracing.span import Span, SpanKind
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.shadow.comparison import ComparisonResult, EngineCall


def trace_comparison(
    tracer: Tracer | None, mirrored: MirrorFrame, finding: ComparisonResult, began: float
) -> None:
    """Record what a comparison came to.

    Args:
        tracer: None: tracing is off.
        mirrored: The request.
        finding: What came of it.
        began: When; monotonic seconds.
    """
    if tracer is None or not mirrored.trace:
        return
    request = read_traceparent(mirrored.trace.encode("latin-1"))
    if request is None or not request.is_sampled:
        return
    now, ns = tracer.now(), tracer.clock()
    root = tracer.root()
    candidates = (*finding.pairs, *finding.sheds)
    # One span for each candidate, in one trace; what was done once for all is below the first.
    contexts = {
        name: root if number == 0 else tracer.child(root) for number, name in enumerate(candidates)
    }
    for turn in finding.turns:
        tracer.record(
            _turn_span(turn, tracer.child(root), contexts.get(turn.variant, root), began, ns)
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
                attributes=_about(mirrored, candidate, finding),
                links=(request,),
            )
        )


def _turn_span(
    turn: EngineCall,
    context: TraceContext,
    parent: TraceContext,
    began: float,
    ns: Callable[[float], int],
) -> Span:
    name = turn.variant
    about: dict[str, Any] = {"penumbra.variant": name, "penumbra.is_again": turn.is_again}
    if turn.problem is not None:
        about["error.type"] = turn.problem
    return Span(
        name=f"{turn.work} {name}",
        kind=SpanKind.CLIENT,
        context=context,
        parent=parent,
        began_ns=ns(began),
        ended_ns=ns(began + turn.seconds),
        attributes=about,
        is_error=turn.problem is not None,
    )


def _about(mirrored: MirrorFrame, candidate: str, finding: ComparisonResult) -> dict[str, Any]:
    about: dict[str, Any] = {
        "penumbra.model": mirrored.model,
        "penumbra.candidate": candidate,
        "penumbra.slice": mirrored.slice,
        "penumbra.epoch": mirrored.epoch,
        "penumbra.request_id": mirrored.request_id,
        "penumbra.variant": mirrored.variant,
        "penumbra.engine_seconds": finding.engine_seconds,
    }
    if candidate in finding.sheds:
        about["penumbra.shed_reason"] = finding.sheds[candidate].value
    for pair in finding.pairs.get(candidate, ()):
        about |= dict(_figures(pair))
    return about


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
