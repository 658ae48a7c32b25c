"""The trace of one sampled request: what is noted while it runs, and its spans when it is over.

A request that is not sampled has none of this. A sampled one gets attempts of its own to be
dispatched by (`RequestTrace.attempts`): copies of its model's whose upstream and watch look on, so
the dispatch itself knows nothing of traces. Nothing here is called for a token.

Reading order: trace_request, RequestTrace.attempts, RequestTrace.finish.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from penumbra.monitoring.tracing import semconv
from penumbra.monitoring.tracing.context import TRACEPARENT, TRACESTATE, TraceContext
from penumbra.monitoring.tracing.span import Span, SpanEvent, SpanKind
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.monitoring.vocabulary import FAILURES, Outcome, role_of
from penumbra.router.dispatch.attempt import Attempt, AttemptWatch
from penumbra.router.upstream.port import Receiver, Scores, Stream, Upstream, UpstreamRequest

if TYPE_CHECKING:
    from penumbra.router.dispatch.dispatch import Dispatch
    from penumbra.router.gateway.answer_timing import AnswerTiming
    from penumbra.router.gateway.compiled_table import Routed
    from penumbra.router.gateway.exchange import Exchange

BROKEN_OFF = "broken_off"
"""`error.type` of an answer that was begun and could not be completed."""
CLIENT_GONE = "client_gone"
"""`error.type` of one whose client went away."""
_FIRST_ERROR_STATUS = 500
_HTTP_PORT = 80
_LAST_OUTCOMES = {BROKEN_OFF: Outcome.DIED, CLIENT_GONE: Outcome.CLIENT_GONE}
"""How an attempt ended that nobody said the end of: the continuation of a stream."""
_PASSED_ON = FAILURES | {Outcome.ROLLED_BACK}

Clock = Callable[[float], int]
"""Monotonic seconds -> Unix nanoseconds."""


class _Usage(msgspec.Struct):
    """The two spellings of OpenAI's APIs."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def attributes(self) -> dict[str, int]:
        """As far as they are known."""
        read = self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens
        said = self.completion_tokens if self.completion_tokens is not None else self.output_tokens
        counts = {semconv.INPUT_TOKENS: read, semconv.OUTPUT_TOKENS: said}
        return {name: count for name, count in counts.items() if count is not None}


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def trace_request(
    tracer: Tracer, exchange: "Exchange", observation: "AnswerTiming"
) -> "RequestTrace | None":
    """Begin the trace of a request that was read; None if it is not sampled.

    The header of a sampled one is taken out: each attempt gets its own. A state of a context that
    cannot be read goes with it, as W3C says; that of an unsampled request passes on as it came.
    """
    headers = exchange.headers
    found = tracer.sample(headers.get(TRACEPARENT))
    if found is None:
        return None
    headers.pop(TRACEPARENT, None)
    context, parent = found
    if parent is None:
        headers.pop(TRACESTATE, None)
    observation.trace_id = context.trace_hex
    return RequestTrace(tracer, context, parent, observation)


@dataclass(slots=True)
class _Try:
    """One attempt; monotonic seconds."""

    context: TraceContext
    variant: str
    began_at: float
    is_continuation: bool
    ended_at: float | None = None
    outcome: Outcome | None = None

    def end(self, at: float, outcome: Outcome) -> None:
        """It is over, unless it was before."""
        if self.ended_at is None:
            self.ended_at, self.outcome = at, outcome


class RequestTrace:
    """One sampled request under way.

    Args:
        tracer: Records its spans.
        context: Of its own span.
        parent: Whose child that is, if the client has one.
        observation: Of the answer.
    """

    __slots__ = (
        "_answered_at", "_error", "_observation", "_parent", "_routed", "_status", "_tracer",
        "_tries", "context",
    )  # fmt: skip

    def __init__(
        self,
        tracer: Tracer,
        context: TraceContext,
        parent: TraceContext | None,
        observation: "AnswerTiming",
    ) -> None:
        self._tracer = tracer
        self._observation = observation
        self._parent = parent
        self.context = context
        self._routed: Routed | None = None
        self._tries: list[_Try] = []
        self._answered_at: float | None = None
        self._status: int | None = None
        self._error: str | None = None

    def routed(self, routed: "Routed") -> dict[str, Attempt]:
        """The request was decided: the attempts that it is to be dispatched by."""
        self._routed = routed
        found = {}
        for name, attempt in routed.model.attempts.items():
            traced = found[name] = copy.copy(attempt)
            traced.upstream = _TracedUpstream(self, name, attempt.upstream, routed.request.path)
            traced.watch = _TracedWatch(self, name, attempt.watch)
        return found

    def answered(self, status: int) -> None:
        """The head of the answer is made."""
        self._status = status
        self._answered_at = self._tracer.now()

    # Attempts

    def begin(self, variant: str, request: UpstreamRequest) -> UpstreamRequest:
        """An attempt begins; the request as its build gets it."""
        at = self._tracer.now()
        if self._tries:
            # A server that does not take the field of a tap is asked again, by the same attempt.
            self._tries[-1].end(at, Outcome.CLIENT_ERROR)
        one = _Try(self._tracer.child(self.context), variant, at, self._answered_at is not None)
        self._tries.append(one)
        line = f"traceparent: {one.context.header}\r\n".encode("ascii")
        return UpstreamRequest(request.path, request.headers + line, request.body, request.method)

    def end(self, variant: str, outcome: Outcome) -> None:
        """The attempt at a variant is over."""
        if self._tries and self._tries[-1].variant == variant:
            self._tries[-1].end(self._tracer.now(), outcome)

    # The end

    def finish(self, exchange: "Exchange", dispatch: "Dispatch | None", error: str | None) -> None:
        """The client has its last byte, or will get no more: record the spans.

        Args:
            exchange: The request.
            dispatch: How it was answered; None: it was refused before.
            error: The code of an error of the gateway's own, `BROKEN_OFF`, or `CLIENT_GONE`.
        """
        self._error = error
        now, ns = self._tracer.now(), self._tracer.clock()
        if self._tries:
            self._tries[-1].end(now, _LAST_OUTCOMES.get(self._error or "", Outcome.OK))
        path = exchange.path.partition(b"?")[0].decode("ascii")
        operation = semconv.OPERATIONS[path]
        for one in self._tries:
            self._tracer.record(self._attempt_span(one, operation, ns))
        name = self._routed.model.name if self._routed else ""
        self._tracer.record(
            Span(
                name=f"{operation} {name}".rstrip(),
                kind=SpanKind.SERVER,
                context=self.context,
                parent=self._parent,
                began_ns=ns(self._observation.started_at),
                ended_ns=ns(now),
                attributes=self._about(exchange, path, dispatch),
                happenings=tuple(self._happenings(ns)),
                is_error=self._error == BROKEN_OFF or (self._status or 0) >= _FIRST_ERROR_STATUS,
            )
        )

    def _about(
        self, exchange: "Exchange", path: str, dispatch: "Dispatch | None"
    ) -> dict[str, Any]:
        about = self._inference(semconv.OPERATIONS[path], semconv.GATEWAY)
        about[semconv.HTTP_ROUTE] = path
        about["penumbra.request_id"] = exchange.request_id.decode("latin-1")
        if self._status is not None:
            about[semconv.HTTP_STATUS] = self._status
        if self._error is not None:
            about[semconv.ERROR_TYPE] = self._error
        routed = self._routed
        if routed is not None:
            about["penumbra.slice"] = routed.plan.slice_name
            about["penumbra.epoch"] = routed.model.epoch
            about["penumbra.is_mirrored"] = routed.tapped is not None
        if dispatch is not None:
            about |= self._variant(dispatch.attempt.name)
            about["penumbra.is_continued"] = dispatch.is_continued
            about |= _usage(dispatch.whole_body)
            if dispatch.failover is not None:
                about["penumbra.failover"] = dispatch.failover.value
        return about

    def _happenings(self, ns: Clock) -> Iterator[SpanEvent]:
        if self._routed is not None:
            yield SpanEvent(
                semconv.FLAG_EVALUATION, ns(self._observation.started_at), _decision(self._routed)
            )
        for before, after in itertools.pairwise(self._tries):
            if before.outcome not in _PASSED_ON:
                continue
            about = {"penumbra.from_variant": before.variant, "penumbra.outcome": before.outcome}
            name = "continuation" if after.is_continuation else "failover"
            yield SpanEvent(name, ns(after.began_at), about)
        if self._answered_at is not None:
            yield SpanEvent("first_byte", ns(self._answered_at))

    def _attempt_span(self, one: _Try, operation: str, ns: Clock) -> Span:
        outcome = one.outcome or Outcome.OK
        about = self._inference(operation, semconv.ENGINE) | self._variant(one.variant)
        about["penumbra.outcome"] = outcome.value
        about["penumbra.is_continuation"] = one.is_continuation
        if self._routed is not None:
            url = urlsplit(self._routed.model.snapshot.variants[one.variant].url)
            about[semconv.SERVER_ADDRESS] = url.hostname or ""
            about[semconv.SERVER_PORT] = url.port or _HTTP_PORT
        if outcome is not Outcome.OK:
            about[semconv.ERROR_TYPE] = outcome.value
        return Span(
            name=f"attempt {one.variant}",
            kind=SpanKind.CLIENT,
            context=one.context,
            parent=self.context,
            began_ns=ns(one.began_at),
            ended_ns=ns(one.began_at if one.ended_at is None else one.ended_at),
            attributes=about,
            is_error=outcome in FAILURES,
        )

    def _inference(self, operation: str, provider: str) -> dict[str, Any]:
        about = semconv.inference(operation, provider, is_latest=self._tracer.is_latest_semconv)
        if self._routed is not None:
            about[semconv.REQUEST_MODEL] = self._routed.model.name
        return about

    def _variant(self, name: str) -> dict[str, Any]:
        baseline = self._routed.plan.baseline if self._routed is not None else ""
        return {"penumbra.variant": name, "penumbra.role": role_of(name, baseline).value}


def _usage(body: bytes) -> dict[str, int]:
    """The counts of tokens of a whole answer, if it has any."""
    try:
        usage = _decode_answer(body).usage if body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {} if usage is None else usage.attributes


def _decision(routed: "Routed") -> dict[str, Any]:
    return {
        semconv.FLAG_KEY: routed.model.name,
        semconv.FLAG_PROVIDER: semconv.GATEWAY,
        semconv.FLAG_VARIANT: routed.decision.variant,
        semconv.FLAG_REASON: routed.decision.reason.value.lower(),
        semconv.FLAG_VERSION: str(routed.model.epoch),
        "penumbra.slice": routed.plan.slice_name,
    }


class _TracedUpstream:
    """A variant's upstream, for one traced request.

    What else goes to it on the request's behalf (counting tokens) is passed on as it is.
    """

    def __init__(self, trace: RequestTrace, variant: str, upstream: Upstream, path: bytes) -> None:
        self._trace = trace
        self._variant = variant
        self._upstream = upstream
        self._path = path

    def stream(self, request: UpstreamRequest, receiver: Receiver) -> Stream:
        """See `Upstream`."""
        if request.path == self._path:
            request = self._trace.begin(self._variant, request)
        return self._upstream.stream(request, receiver)

    async def score(self, token_ids: Sequence[int], start: int) -> Scores:
        """See `Upstream`."""
        return await self._upstream.score(token_ids, start)

    async def health(self) -> bool:
        """See `Upstream`."""
        return await self._upstream.health()

    async def fingerprint(self) -> str:
        """See `Upstream`."""
        return await self._upstream.fingerprint()


class _TracedWatch:
    """A variant's watch, if it has one, and the trace's own look at how its attempt ended."""

    def __init__(self, trace: RequestTrace, variant: str, watch: AttemptWatch | None) -> None:
        self._trace = trace
        self._variant = variant
        self._watch = watch

    def ended(self, slice_name: str, outcome: Outcome) -> None:
        """See `AttemptWatch`."""
        self._trace.end(self._variant, outcome)
        if self._watch is not None:
            self._watch.ended(slice_name, outcome)

    def first_byte(self, slice_name: str, seconds: float) -> None:
        """See `AttemptWatch`."""
        if self._watch is not None:
            self._watch.first_byte(slice_name, seconds)

    def piece(self, slice_name: str, seconds: float) -> None:
        """See `AttemptWatch`."""
        if self._watch is not None:
            self._watch.piece(slice_name, seconds)
