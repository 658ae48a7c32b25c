"""The attempts of one traced request: what is noted of each while it runs, and their spans.

A traced request is dispatched by copies of its model's attempts (`AttemptTraces.wrap`). The
upstream and the watch of a copy note when an attempt begins and ends, so the dispatch itself knows
nothing of traces. Nothing here is called for a token.

Reading order: AttemptTraces.wrap, begin, end, spans.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penumbra.monitoring.tracing import semconv
from penumbra.monitoring.tracing.context import TraceContext
from penumbra.monitoring.tracing.span import Span, SpanEvent, SpanKind
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.monitoring.vocabulary import FAILURES, Outcome, role_of
from penumbra.router.dispatch.admissions import Admission
from penumbra.router.dispatch.attempt import Attempt, AttemptWatch
from penumbra.router.gateway.compiled_table import Routed
from penumbra.router.upstream.base_url import read_base_url
from penumbra.router.upstream.port import Receiver, Scores, Stream, Upstream, UpstreamRequest

_PASSED_ON = FAILURES | {Outcome.ROLLED_BACK}
"""Outcomes after which another attempt takes over."""

Clock = Callable[[float], int]
"""Monotonic seconds -> Unix nanoseconds."""


@dataclass(slots=True)
class _AttemptTrace:
    """One attempt; monotonic seconds."""

    context: TraceContext
    variant: str
    began_at: float
    is_continuation: bool
    ended_at: float | None = None
    outcome: Outcome | None = None

    def end(self, at: float, outcome: Outcome) -> None:
        """Record the end, unless it was recorded before."""
        if self.ended_at is None:
            self.ended_at, self.outcome = at, outcome


class AttemptTraces:
    """The attempts of one traced request, in order.

    Args:
        tracer: Gives times and contexts.
        parent: Context of the request's own span.
        routed: The request with its decision.
    """

    __slots__ = ("_parent", "_routed", "_tracer", "_traces", "is_answered")

    def __init__(self, tracer: Tracer, parent: TraceContext, routed: Routed) -> None:
        self._tracer = tracer
        self._parent = parent
        self._routed = routed
        self._traces: list[_AttemptTrace] = []
        self.is_answered = False
        """Whether the client has the head of an answer: a later attempt continues a stream."""

    def wrap(self) -> dict[str, Attempt]:
        """Copy the model's attempts so that each notes its begin and end here."""
        path = self._routed.request.path
        return {
            name: Attempt(
                name,
                _TracedUpstream(self, name, attempt.upstream, path),
                attempt.cells,
                _TracedWatch(self, name, attempt.watch),
                attempt.gate,
                attempt.record,
            )
            for name, attempt in self._routed.model.attempts.items()
        }

    def begin(self, variant: str, request: UpstreamRequest) -> UpstreamRequest:
        """Note that an attempt begins; returns its request with the trace context added."""
        at = self._tracer.now()
        # A server that does not take the field of a tap is asked again, by the same attempt.
        self.end_last(at, Outcome.CLIENT_ERROR)
        context = self._tracer.child(self._parent)
        self._traces.append(_AttemptTrace(context, variant, at, self.is_answered))
        line = f"traceparent: {context.header}\r\n".encode("ascii")
        headers = request.headers + line
        return UpstreamRequest(
            request.path, headers, request.body, request.method, budget=request.budget
        )

    def end(self, variant: str, outcome: Outcome) -> None:
        """Note the end of the attempt at a variant."""
        if self._traces and self._traces[-1].variant == variant:
            self.end_last(self._tracer.now(), outcome)

    def end_last(self, at: float, outcome: Outcome) -> None:
        """Note the end of the last attempt, if it has none; monotonic seconds."""
        if self._traces:
            self._traces[-1].end(at, outcome)

    def spans(self, operation: str, ns: Clock) -> Iterator[Span]:
        """The span of each attempt."""
        for trace in self._traces:
            outcome = trace.outcome or Outcome.OK
            yield Span(
                name=f"attempt {trace.variant}",
                kind=SpanKind.CLIENT,
                context=trace.context,
                parent=self._parent,
                began_ns=ns(trace.began_at),
                ended_ns=ns(trace.began_at if trace.ended_at is None else trace.ended_at),
                attributes=self._attributes(trace, outcome, operation),
                is_error=outcome in FAILURES,
            )

    def _attributes(self, trace: _AttemptTrace, outcome: Outcome, operation: str) -> dict[str, Any]:
        routed = self._routed
        about = inference_attributes(self._tracer, routed, operation, semconv.ENGINE)
        about |= variant_attributes(routed, trace.variant)
        about["penumbra.outcome"] = outcome.value
        about["penumbra.is_continuation"] = trace.is_continuation
        server = read_base_url(routed.model.snapshot.variants[trace.variant].url)
        about[semconv.SERVER_ADDRESS] = server.host
        about[semconv.SERVER_PORT] = server.port
        if outcome is not Outcome.OK:
            about[semconv.ERROR_TYPE] = outcome.value
        return about

    def takeovers(self, ns: Clock) -> Iterator[SpanEvent]:
        """An event for each failover and each continuation."""
        for before, after in itertools.pairwise(self._traces):
            if before.outcome not in _PASSED_ON:
                continue
            about = {"penumbra.from_variant": before.variant, "penumbra.outcome": before.outcome}
            name = "continuation" if after.is_continuation else "failover"
            yield SpanEvent(name, ns(after.began_at), about)


def inference_attributes(
    tracer: Tracer, routed: Routed | None, operation: str, provider: str
) -> dict[str, Any]:
    """The attributes of a span of an inference; without the model if that is not known."""
    about = semconv.inference(operation, provider, is_latest=tracer.is_latest_semconv)
    if routed is not None:
        about[semconv.REQUEST_MODEL] = routed.model.name
    return about


def variant_attributes(routed: Routed | None, name: str) -> dict[str, Any]:
    """The attributes that name a variant and its role."""
    baseline = routed.plan.baseline if routed is not None else ""
    return {"penumbra.variant": name, "penumbra.role": role_of(name, baseline).value}


class _TracedUpstream:
    """A variant's upstream, for one traced request.

    Other calls on the request's behalf (counting tokens) are passed on as they are.
    """

    def __init__(
        self, traces: AttemptTraces, variant: str, upstream: Upstream, path: bytes
    ) -> None:
        self._traces = traces
        self._variant = variant
        self._upstream = upstream
        self._path = path

    def stream(self, request: UpstreamRequest, receiver: Receiver) -> Stream:
        """See `Upstream`."""
        if request.path == self._path:
            request = self._traces.begin(self._variant, request)
        return self._upstream.stream(request, receiver)

    async def score(self, token_ids: Sequence[int], start: int) -> Scores:
        """See `Upstream`."""
        return await self._upstream.score(token_ids, start)

    async def health(self) -> bool:
        """See `Upstream`."""
        return await self._upstream.health()


class _TracedWatch:
    """A variant's watch, if it has one; notes how the attempt ended as well."""

    def __init__(self, traces: AttemptTraces, variant: str, watch: AttemptWatch | None) -> None:
        self._traces = traces
        self._variant = variant
        self._watch = watch

    def admit(self, slice_name: str) -> Admission | None:
        """See `AttemptWatch`."""
        return None if self._watch is None else self._watch.admit(slice_name)

    def note_failure(self, outcome: Outcome, admission: Admission | None) -> None:
        """See `AttemptWatch`. A span says how its attempt ended, whosever fault it was."""
        self._traces.end(self._variant, outcome)
        if self._watch is not None:
            self._watch.note_failure(outcome, admission)

    def record_end(
        self, slice_name: str, outcome: Outcome, admission: Admission | None = None
    ) -> None:
        """See `AttemptWatch`."""
        self._traces.end(self._variant, outcome)
        if self._watch is not None:
            self._watch.record_end(slice_name, outcome, admission)

    def record_first_byte(self, slice_name: str, seconds: float, *, is_stream: bool) -> bool:
        """See `AttemptWatch`."""
        watch = self._watch
        return watch is not None and watch.record_first_byte(
            slice_name, seconds, is_stream=is_stream
        )

    def record_pace(self, slice_name: str, seconds: float) -> bool:
        """See `AttemptWatch`."""
        return self._watch is not None and self._watch.record_pace(slice_name, seconds)
