"""The trace of one request over upstreams in memory: its span and those of its attempts."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from penumbra.monitoring.tracing.context import read_traceparent
from penumbra.monitoring.tracing.span import Span, SpanKind
from penumbra.monitoring.tracing.tracer import Tracer
from penumbra.monitoring.vocabulary import Outcome, Reason
from penumbra.router.dispatch.admissions import Admission
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.flags.evaluate import Decision
from penumbra.router.flags.routing_table import Variant
from penumbra.router.gateway.answer_timing import AnswerTiming
from penumbra.router.gateway.compiled_table import Routed
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.incoming_request import IncomingRequest
from penumbra.router.gateway.request_trace import CLIENT_GONE, RequestTrace, trace_request
from penumbra.router.mirror.token_tap import FIELD, TokenTap, tap_body
from penumbra.router.settings import GatewaySettings
from penumbra.router.upstream.calls import fetch_json, json_request
from penumbra.router.upstream.fake import FakeUpstream, Hang, Script, events, whole
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.dispatching import ANY, services
from tests.unit.router.dispatch.test_dispatch import ERROR, GOOD, RecordingClient, chunk
from tests.unit.router.gateway.test_gateway import table

CHAT = b"/v1/chat/completions"
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class ListingWatch:
    """A watch of a variant that lists its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def admit(self, slice_name: str) -> None:
        self.calls.append(("admitted", slice_name))

    def note_failure(self, outcome: Outcome, admission: Admission | None) -> None:
        self.calls.append(("failed", outcome.value))

    def record_end(
        self, slice_name: str, outcome: Outcome, admission: Admission | None = None
    ) -> None:
        self.calls.append(("ended", outcome.value))

    def record_first_byte(self, slice_name: str, seconds: float, *, is_stream: bool) -> bool:
        self.calls.append(("first_byte", slice_name))
        return True

    def record_pace(self, slice_name: str, seconds: float) -> bool:
        self.calls.append(("piece", slice_name))
        return False


@dataclass
class Traced:
    """One traced request, decided for the candidate."""

    candidate: list[Script] = field(default_factory=list)
    baseline: list[Script] = field(default_factory=list)
    is_stream: bool = False

    def __post_init__(self) -> None:
        self.ticks = itertools.count()
        self.spans: list[Span] = []
        self.upstreams: dict[str, FakeUpstream] = {}
        scripts = {"int8": iter(self.candidate), "full": iter(self.baseline)}

        def connect(model: str, variant: Variant) -> FakeUpstream:
            name = variant.url.removeprefix("http://").removesuffix(".test")
            found = self.upstreams[name] = FakeUpstream(model, lambda _: next(scripts[name]))
            return found

        gateway = Gateway(GatewaySettings(snapshot=table(7)), lambda: 0.0, connect)
        model = gateway._models["demo"]
        self.watch = model.attempts["int8"].watch = ListingWatch()
        self.tracer = Tracer(1.0, self.spans.append, lambda: float(next(self.ticks)), lambda: 0)
        headers = {b"traceparent": TRACEPARENT, b"tracestate": b"v=1"}
        self.incoming = IncomingRequest(CHAT, headers, b"", b"r1", list(headers.items()), b"own")
        self.timing = AnswerTiming()
        trace = trace_request(self.tracer, self.incoming, self.timing)
        assert trace is not None
        self.trace: RequestTrace = trace
        decision = Decision("int8", Reason.SPLIT)
        plan = model.plan(decision, "other", is_lease_fresh=True)
        body = {"model": "demo", "stream": self.is_stream, "messages": [{"role": "user"}]}
        request = UpstreamRequest(CHAT, b"a: b\r\n", json.dumps(body).encode())
        routed = Routed(model, decision, plan, request, ANY)
        self.client = RecordingClient()
        self.dispatch = Dispatch(plan, trace.route(routed), request, self.client, ANY, services())
        self.request = request

    def end(self, error: str | None = None) -> tuple[Span, list[Span]]:
        """Finish the trace; returns the request's span and those of its attempts."""
        self.trace.answer(self.client.status)
        self.trace.finish(self.dispatch, error)
        (root,) = [span for span in self.spans if span.kind is SpanKind.SERVER]
        attempts = [span for span in self.spans if span.parent == root.context]
        assert len(attempts) == len(self.spans) - 1
        return root, attempts

    def sent(self) -> Iterator[str]:
        """The trace contexts that builds got."""
        for upstream in self.upstreams.values():
            for request in upstream.requests:
                lines = request.headers.decode().split("\r\n")
                yield next(line for line in lines if line.startswith("traceparent: "))[13:]


def outcomes(attempts: list[Span]) -> list[str]:
    return [span.attributes["penumbra.outcome"] for span in attempts]


def names(span: Span) -> list[str]:
    return [event.name for event in span.happenings]


async def test_a_sampled_requests_context_is_replaced_by_its_attempts() -> None:
    traced = Traced(candidate=[whole(GOOD)])
    assert traced.incoming.headers == {b"tracestate": b"v=1"}
    assert traced.timing.trace_id == "0af7651916cd43dd8448eb211c80319c"
    traced.dispatch.start()
    await traced.client.over.wait()
    root, (attempt,) = traced.end()
    assert root.parent == read_traceparent(TRACEPARENT)
    assert list(traced.sent()) == [attempt.context.header]
    assert attempt.attributes["server.address"] == "int8.test"
    assert attempt.attributes["server.port"] == 80


async def test_a_rollback_under_way_is_an_attempt_that_was_rolled_back() -> None:
    traced = Traced(candidate=[(Hang(),)], baseline=[whole(GOOD)])
    traced.dispatch.start()
    assert traced.dispatch.leave_candidate()
    await traced.client.over.wait()
    root, attempts = traced.end()
    assert outcomes(attempts) == ["rolled_back", "ok"]
    assert not attempts[0].is_error  # it did nothing wrong
    assert names(root)[:2] == ["feature_flag.evaluation", "failover"]
    assert root.attributes["penumbra.failover"] == "rolled_back"


async def test_a_stream_that_a_rollback_moves_is_continued() -> None:
    begun = [*events(chunk("a"), is_done=False), Hang()]
    traced = Traced(candidate=[begun], baseline=[events(chunk("b"))], is_stream=True)
    traced.dispatch.start()
    await traced.client.began.wait()
    traced.trace.answer(200)
    assert traced.dispatch.leave_candidate()
    await traced.client.over.wait()
    root, attempts = traced.end()
    assert outcomes(attempts) == ["rolled_back", "ok"]
    assert attempts[1].attributes["penumbra.is_continuation"] is True
    assert "continuation" in names(root)


async def test_a_server_that_refuses_a_tap_is_no_failover() -> None:
    refusal = {"error": {"message": f"unknown field {FIELD.decode()}", "code": 400}}
    traced = Traced(candidate=[whole(refusal, 400), whole(GOOD)])
    body = tap_body(traced.request.body)
    assert body is not None
    traced.dispatch.tap(TokenTap(traced.request, body))
    traced.dispatch.start()
    await traced.client.over.wait()
    root, attempts = traced.end()
    assert outcomes(attempts) == ["client_error", "ok"]
    assert len(set(traced.sent())) == 2
    assert "failover" not in names(root)


async def test_a_4xx_of_both_builds_is_no_error_of_the_request() -> None:
    traced = Traced(candidate=[whole(ERROR, 400)], baseline=[whole(ERROR, 400)])
    traced.dispatch.start()
    await traced.client.over.wait()
    root, attempts = traced.end()
    assert outcomes(attempts) == ["rejected", "client_error"]
    assert not attempts[1].is_error
    assert not root.is_error


async def test_a_client_that_goes_away_ends_the_attempt() -> None:
    traced = Traced(candidate=[(Hang(),)])
    traced.dispatch.start()
    traced.dispatch.abort()
    root, attempts = traced.end(CLIENT_GONE)
    assert outcomes(attempts) == ["client_gone"]
    assert root.attributes["error.type"] == "client_gone"


async def test_the_variants_own_watch_is_called_as_without_a_trace() -> None:
    traced = Traced(candidate=[whole(GOOD)])
    traced.dispatch.start()
    await traced.client.over.wait()
    watch = traced.dispatch.attempt.watch
    assert watch is not None
    assert watch.record_first_byte("other", 0.1, is_stream=True)
    assert not watch.record_pace("other", 0.1)
    ended = [("admitted", "other"), ("ended", "ok")]
    assert traced.watch.calls == [*ended, ("first_byte", "other"), ("piece", "other")]


async def test_other_calls_of_an_upstream_are_not_traced() -> None:
    traced = Traced(baseline=[whole({"count": 1})])
    upstream = traced.dispatch._attempts["full"].upstream
    assert await fetch_json(upstream, json_request("/tokenize", {})) == {"count": 1}
    assert b"traceparent" not in traced.upstreams["full"].requests[0].headers
    assert traced.end()[1] == []


def test_a_request_that_is_not_sampled_keeps_its_headers() -> None:
    headers = {b"traceparent": TRACEPARENT[:-1] + b"0", b"tracestate": b"v=1"}
    incoming = IncomingRequest(CHAT, dict(headers), b"", b"r1", list(dict(headers).items()), b"own")
    timing = AnswerTiming()
    tracer = Tracer(1.0, pytest.fail, lambda: 0.0, lambda: 0)
    assert trace_request(tracer, incoming, timing) is None
    assert incoming.headers == headers
    assert timing.trace_id is None
