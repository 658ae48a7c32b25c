"""The trace of one sampled request: what is noted while it runs, and its spans when it is over.

A request that is not sampled has no trace. The attempts of a sampled one are in
`penumbra.router.gateway.attempt_trace`. Nothing here is called for a token.

Reading order: trace_request, RequestTrace.route, RequestTrace.finish.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from penumbra.monitoring.tracing import semconv
from penumbra.monitoring.tracing.context import TRACEPARENT, TRACESTATE, TraceContext
from penumbra.monitoring.tracing.span import Span, SpanEvent, SpanKind
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.gateway.answer_timing import AnswerTiming
from penumbra.router.gateway.attempt_trace import (
    AttemptTraces,
    Clock,
    inference_attributes,
    variant_attributes,
)
from penumbra.router.gateway.compiled_table import Routed
from penumbra.router.gateway.incoming_request import IncomingRequest

BROKEN_OFF = "broken_off"
"""`error.type` of an answer that was begun and could not be completed."""
CLIENT_GONE = "client_gone"
"""`error.type` of an answer whose client went away."""
_FIRST_ERROR_STATUS = 500
_LAST_OUTCOMES = {BROKEN_OFF: Outcome.DIED, CLIENT_GONE: Outcome.CLIENT_GONE}
"""Outcome of a last attempt whose end was not reported: the continuation of a stream."""


class _Usage(msgspec.Struct):
    """The two spellings of OpenAI's APIs."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def attributes(self) -> dict[str, int]:
        """The counts that are known."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        counts = {
            semconv.INPUT_TOKENS: prompt if prompt is not None else self.input_tokens,
            semconv.OUTPUT_TOKENS: completion if completion is not None else self.output_tokens,
        }
        return {name: count for name, count in counts.items() if count is not None}


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def trace_request(
    tracer: Tracer, request: IncomingRequest, timing: AnswerTiming
) -> "RequestTrace | None":
    """Begin the trace of a request that was read; None if it is not sampled.

    The header of a sampled one is taken out: each attempt gets its own. A state of a context that
    cannot be read goes with it, as W3C says; that of an unsampled request passes on as it came.
    """
    headers = request.headers
    found = tracer.sample(headers.get(TRACEPARENT))
    if found is None:
        return None
    headers.pop(TRACEPARENT, None)
    context, parent = found
    if parent is None:
        headers.pop(TRACESTATE, None)
    request.lines[:] = [line for line in request.lines if line[0] in headers]
    timing.trace_id = context.trace_hex
    return RequestTrace(tracer, context, parent, request, timing)


class RequestTrace:
    """One sampled request under way.

    Args:
        tracer: Records its spans.
        context: Context of its own span.
        parent: Context of the client's span, if the client has one.
        request: The request.
        timing: Times of the answer.
    """

    __slots__ = (
        "_answered_at", "_attempts", "_parent", "_request", "_routed", "_status", "_timing",
        "_tracer", "context",
    )  # fmt: skip

    def __init__(
        self,
        tracer: Tracer,
        context: TraceContext,
        parent: TraceContext | None,
        request: IncomingRequest,
        timing: AnswerTiming,
    ) -> None:
        self._tracer = tracer
        self._parent = parent
        self._request = request
        self._timing = timing
        self.context = context
        self._routed: Routed | None = None
        self._attempts: AttemptTraces | None = None
        self._answered_at: float | None = None
        self._status: int | None = None

    def route(self, routed: Routed) -> dict[str, Attempt]:
        """Note the decision; returns the attempts to dispatch the request by."""
        self._routed = routed
        self._attempts = AttemptTraces(self._tracer, self.context, routed)
        return self._attempts.wrap()

    def answer(self, status: int) -> None:
        """Note the head of the answer."""
        self._status = status
        self._answered_at = self._tracer.now()
        if self._attempts is not None:
            self._attempts.is_answered = True

    def finish(self, dispatch: Dispatch | None, error: str | None) -> None:
        """Record the spans: the client has its last byte, or will get no more.

        Args:
            dispatch: How the request was answered; None: it was refused before.
            error: The code of an error of the gateway's own, `BROKEN_OFF`, or `CLIENT_GONE`.
        """
        now, ns = self._tracer.now(), self._tracer.clock()
        path = self._request.path.partition(b"?")[0].decode("ascii")
        operation = semconv.OPERATIONS[path]
        if self._attempts is not None:
            self._attempts.end_last(now, _LAST_OUTCOMES.get(error or "", Outcome.OK))
            for span in self._attempts.spans(operation, ns):
                self._tracer.record(span)
        name = self._routed.model.name if self._routed else ""
        self._tracer.record(
            Span(
                name=f"{operation} {name}".rstrip(),
                kind=SpanKind.SERVER,
                context=self.context,
                parent=self._parent,
                began_ns=ns(self._timing.started_at),
                ended_ns=ns(now),
                attributes=self._attributes(path, dispatch, error),
                happenings=tuple(self._events(ns)),
                is_error=error == BROKEN_OFF or (self._status or 0) >= _FIRST_ERROR_STATUS,
            )
        )

    def _attributes(
        self, path: str, dispatch: Dispatch | None, error: str | None
    ) -> dict[str, Any]:
        routed, operation = self._routed, semconv.OPERATIONS[path]
        about = inference_attributes(self._tracer, routed, operation, semconv.GATEWAY)
        about[semconv.HTTP_ROUTE] = path
        about["penumbra.request_id"] = self._request.request_id.decode("latin-1")
        if self._status is not None:
            about[semconv.HTTP_STATUS] = self._status
        if error is not None:
            about[semconv.ERROR_TYPE] = error
        if routed is not None:
            about["penumbra.slice"] = routed.plan.slice_name
            about["penumbra.epoch"] = routed.model.epoch
            about["penumbra.is_mirrored"] = routed.mirror_session is not None
        if dispatch is not None:
            about |= variant_attributes(routed, dispatch.attempt.name)
            about["penumbra.is_continued"] = dispatch.is_continued
            about |= _usage(dispatch.whole_body)
            if dispatch.failover is not None:
                about["penumbra.failover"] = dispatch.failover.value
        return about

    def _events(self, ns: Clock) -> Iterator[SpanEvent]:
        if self._routed is not None:
            evaluated_ns = ns(self._timing.started_at)
            yield SpanEvent(semconv.FLAG_EVALUATION, evaluated_ns, _decision(self._routed))
        if self._attempts is not None:
            yield from self._attempts.takeovers(ns)
        if self._answered_at is not None:
            yield SpanEvent("first_byte", ns(self._answered_at))


def _usage(body: bytes) -> dict[str, int]:
    """The counts of tokens of a whole answer, if it has any."""
    try:
        usage = _decode_answer(body).usage if body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {} if usage is None else usage.attributes


def _decision(routed: Routed) -> dict[str, Any]:
    return {
        semconv.FLAG_KEY: routed.model.name,
        semconv.FLAG_PROVIDER: semconv.GATEWAY,
        semconv.FLAG_VARIANT: routed.decision.variant,
        semconv.FLAG_REASON: routed.decision.reason.value.lower(),
        semconv.FLAG_VERSION: str(routed.model.epoch),
        "penumbra.slice": routed.plan.slice_name,
    }
