"""Spans of a real gateway process, as an OpenTelemetry collector gets them."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penumbra.monitoring.telemetry.metric import Process
from tests.integration.gateway.conftest import EPOCH, FAILOVER_LIMITS, FULL, INT8
from tests.support.behaviours import close_before_head, dying_stream, hang, respond
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.otlp import Collector, Received, collecting
from tests.support.requests import (
    CHAT,
    COMPLETIONS,
    HOT_ROUTES,
    chat,
    completion,
    dumps,
    request_for,
)
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.spans import check, unseen

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
STATE = "vendor=1,other=2"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def environment(collector: Collector) -> dict[str, str]:
    more = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
    return {**collector.environment, **more}


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return FAILOVER_LIMITS


def say(gateway: GatewayProcess, name: str, body: object, path: str = CHAT, **headers: str) -> None:
    gateway.post(path, body, {"x-request-id": name, **headers})


class TracedRequests:
    """The spans of all requests of this module, by request id."""

    def __init__(self, spans: list[Received], sent: dict[str, list[dict[str, str]]]) -> None:
        self.spans = spans
        self.sent = sent
        """Request id -> the headers that builds got, in order."""

    def request(self, name: str) -> Received:
        (found,) = [s for s in self.spans if s.attributes.get("penumbra.request_id") == name]
        return found

    def attempts(self, name: str) -> list[Received]:
        root = self.request(name)
        found = [span for span in self.spans if span.parent_id == root.span_id]
        return sorted(found, key=lambda span: span.began_ns)


REQUESTS = (
    "plain", "continued-trace", "malformed", "stream", "failover", "continuation", "unknown-model",
    "broken", "gone", "error", *(f"route{route}" for route in HOT_ROUTES),
)  # fmt: skip


@pytest.fixture(scope="module")
def traced(
    gateway: GatewayProcess, collector: Collector, full: ScriptedUpstream, int8: ScriptedUpstream
) -> TracedRequests:
    """One request for each case in this module."""
    say(gateway, "plain", chat())
    say(gateway, "continued-trace", chat(), traceparent=SAMPLED, tracestate=STATE)
    say(gateway, "malformed", chat(), traceparent=f"{SAMPLED}-x", tracestate=STATE)
    say(gateway, "stream", completion(stream=True), COMPLETIONS)
    for route in HOT_ROUTES:
        say(gateway, f"route{route}", request_for(route), f"{route}?a=b")
    int8.next(close_before_head())
    say(gateway, "failover", chat("demo-candidate"))
    int8.next(dying_stream(INT8, after_events=3))
    say(gateway, "continuation", chat("demo-candidate", stream=True))
    say(gateway, "unknown-model", chat("unknown-to-all"))
    full.next(dying_stream(FULL, after_events=3))
    with gateway.connect() as client:
        body = request_for(COMPLETIONS, stream=True, n=2)
        client.send_request(COMPLETIONS, dumps(body), {"x-request-id": "broken"})
        client.read_to_eof()
    full.next(hang())
    before = len(full.requests)
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()), {"x-request-id": "gone"})
        full.wait_for_requests(before + 1)
    full.next(respond(500, b'{"error": {"message": "no", "code": 500}}'))
    say(gateway, "error", chat())
    spans = collector.wait_for(
        lambda it: {s.attributes.get("penumbra.request_id") for s in it.spans} >= set(REQUESTS)
    )
    sent: dict[str, list[dict[str, str]]] = {}
    for request in (*full.requests, *int8.requests):
        headers = dict(request.headers)
        sent.setdefault(headers.get("x-request-id", ""), []).append(headers)
    return TracedRequests(spans, sent)


def test_a_request_and_its_attempt_are_parent_and_child(traced: TracedRequests) -> None:
    request = traced.request("plain")
    (attempt,) = traced.attempts("plain")
    assert (request.name, request.kind, request.parent_id) == ("chat demo", "server", "")
    assert (attempt.name, attempt.kind) == ("attempt full", "client")
    assert attempt.trace_id == request.trace_id
    assert request.began_ns <= attempt.began_ns <= attempt.ended_ns <= request.ended_ns
    assert 0 < request.ended_ns - request.began_ns < 5e9


def test_a_requests_attributes_say_what_was_decided_and_what_came_of_it(
    traced: TracedRequests,
) -> None:
    request = traced.request("plain")
    about = request.attributes
    assert about["gen_ai.operation.name"] == "chat"
    assert about["gen_ai.request.model"] == "demo"
    assert about["gen_ai.provider.name"] == about["gen_ai.system"] == "penumbra"
    assert about["http.response.status_code"] == 200
    assert (about["penumbra.variant"], about["penumbra.role"]) == ("full", "baseline")
    assert (about["penumbra.slice"], about["penumbra.epoch"]) == ("other", EPOCH)
    assert about["gen_ai.usage.input_tokens"] > 0
    assert about["gen_ai.usage.output_tokens"] > 0
    assert request.event_names == ["feature_flag.evaluation", "first_byte"]
    decision = request.events[0].attributes
    assert decision["feature_flag.result.variant"] == "full"
    assert decision["feature_flag.result.reason"] == "default"
    assert not request.is_error


def test_the_resource_says_which_process_it_was(traced: TracedRequests) -> None:
    resource = traced.request("plain").resource
    assert resource["service.name"] == "penumbra-gateway"
    assert resource["service.namespace"] == "penumbra"
    assert resource["service.instance.id"] == "gateway-0"
    assert resource["deployment.environment.name"] == "test"


def test_the_clients_trace_is_continued_and_the_build_gets_the_attempts_context(
    traced: TracedRequests,
) -> None:
    request = traced.request("continued-trace")
    (attempt,) = traced.attempts("continued-trace")
    assert (request.trace_id, request.parent_id) == (TRACE, PARENT)
    (sent,) = traced.sent["continued-trace"]
    assert sent["traceparent"] == f"00-{TRACE}-{attempt.span_id}-01"
    assert sent["tracestate"] == STATE


def test_a_malformed_context_is_ignored_with_its_state(traced: TracedRequests) -> None:
    request = traced.request("malformed")
    assert request.parent_id == ""
    assert request.trace_id != TRACE
    (sent,) = traced.sent["malformed"]
    assert sent["traceparent"].split("-")[1] == request.trace_id
    assert "tracestate" not in sent


def test_a_failover_is_two_attempts_and_an_event(traced: TracedRequests) -> None:
    request = traced.request("failover")
    first, second = traced.attempts("failover")
    assert [first.attributes["penumbra.outcome"], second.attributes["penumbra.outcome"]] == [
        "refused",
        "ok",
    ]
    assert (first.is_error, second.is_error, request.is_error) == (True, False, False)
    assert first.attributes["error.type"] == "refused"
    assert request.event_names == ["feature_flag.evaluation", "failover", "first_byte"]
    assert request.events[1].attributes == {
        "penumbra.from_variant": "int8",
        "penumbra.outcome": "refused",
    }
    assert request.attributes["penumbra.failover"] == "refused"
    assert request.attributes["penumbra.variant"] == "full"
    contexts = [headers["traceparent"].split("-")[2] for headers in traced.sent["failover"]]
    assert set(contexts) == {first.span_id, second.span_id}


def test_a_continued_stream_is_two_attempts_and_an_event(traced: TracedRequests) -> None:
    request = traced.request("continuation")
    first, second = traced.attempts("continuation")
    assert first.attributes["penumbra.outcome"] == "died"
    assert second.attributes["penumbra.is_continuation"] is True
    assert second.attributes["penumbra.outcome"] == "ok"
    assert "continuation" in request.event_names
    assert request.attributes["penumbra.is_continued"] is True
    assert not request.is_error


def test_a_refused_request_has_the_code_and_nothing_that_the_client_wrote(
    traced: TracedRequests,
) -> None:
    request = traced.request("unknown-model")
    assert request.name == "chat"
    assert request.attributes["error.type"] == "model_not_found"
    assert request.attributes["http.response.status_code"] == 404
    assert not request.is_error  # the client's fault
    assert traced.attempts("unknown-model") == []
    assert not any("unknown-to-all" in str(span) for span in traced.spans)


def test_a_stream_that_is_given_up_is_an_error(traced: TracedRequests) -> None:
    request = traced.request("broken")
    assert request.attributes["error.type"] == "broken_off"
    assert request.is_error
    assert traced.attempts("broken")[0].attributes["penumbra.outcome"] == "died"


def test_a_client_that_went_away_is_recorded_and_is_no_error(traced: TracedRequests) -> None:
    request = traced.request("gone")
    assert request.attributes["error.type"] == "client_gone"
    assert "http.response.status_code" not in request.attributes
    assert traced.attempts("gone")[0].attributes["penumbra.outcome"] == "client_gone"
    assert not request.is_error


def test_an_engines_500_makes_the_request_an_error(traced: TracedRequests) -> None:
    assert traced.request("error").attributes["http.response.status_code"] == 500
    assert traced.request("error").is_error


@pytest.mark.parametrize("route", HOT_ROUTES)
def test_each_hot_route_has_an_operation(traced: TracedRequests, route: str) -> None:
    request = traced.request(f"route{route}")
    assert request.attributes["http.route"] == route
    assert request.name == f"{request.attributes['gen_ai.operation.name']} demo"


def test_spans_are_those_of_the_registry(traced: TracedRequests) -> None:
    for span in traced.spans:
        check(span)
    assert unseen(Process.GATEWAY, traced.spans) == set()


@contextmanager
def gateway_with(
    settings: dict[str, Any], folder: Path, environment: dict[str, str]
) -> Iterator[GatewayProcess]:
    with GatewayProcess(settings, folder, environment) as process:
        yield process


def test_an_unsampled_request_passes_its_context_on_as_it_came(
    settings: dict[str, Any], tmp_path: Path, collector: Collector, full: ScriptedUpstream
) -> None:
    environment = {**collector.environment, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
    environment["OTEL_TRACES_SAMPLER_ARG"] = "0"
    with gateway_with(settings, tmp_path, environment) as process:
        say(process, "unsampled", chat(), traceparent=UNSAMPLED, tracestate=STATE)
        say(process, "none", chat())
        say(process, "malformed-unsampled", chat(), traceparent="x", tracestate=STATE)
        say(process, "sampled-by-parent", chat(), traceparent=SAMPLED)
    sent = {
        dict(request.headers)["x-request-id"]: dict(request.headers) for request in full.requests
    }
    assert sent["unsampled"]["traceparent"] == UNSAMPLED
    assert sent["unsampled"]["tracestate"] == STATE
    assert "traceparent" not in sent["none"]
    assert sent["malformed-unsampled"]["traceparent"] == "x"
    ids = {span.attributes.get("penumbra.request_id") for span in collector.spans}
    assert "sampled-by-parent" in ids
    assert not ids & {"unsampled", "none", "malformed-unsampled"}


def test_only_the_latest_names_are_sent_if_asked_for(
    settings: dict[str, Any], tmp_path: Path, full: ScriptedUpstream
) -> None:
    del full
    with collecting() as fresh:
        opted = {"OTEL_SEMCONV_STABILITY_OPT_IN": "http,gen_ai_latest_experimental"}
        opted["OTEL_SERVICE_NAME"] = "my-own"
        opted["OTEL_EXPORTER_OTLP_HEADERS"] = "x-collector-key=secret"
        with gateway_with(settings, tmp_path, {**fresh.environment, **opted}) as process:
            say(process, "latest", chat())
        span = fresh.one("chat demo")
    assert "gen_ai.system" not in span.attributes
    assert span.attributes["gen_ai.provider.name"] == "penumbra"
    assert span.resource["service.name"] == "my-own"
    assert fresh.metadata[0]["x-collector-key"] == "secret"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes", "wanted one of: always_on"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8", "the exporter of traces refuses its variables"),
    ],
)
def test_variables_that_cannot_be_used_end_the_process_at_its_start(
    settings: dict[str, Any], tmp_path: Path, variable: str, value: str, words: str
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", variable: value}
    process = GatewayProcess(settings, tmp_path, environment)
    process.start(wait=False)
    assert process.process.wait(60) == 2
    assert words in process.log_text()
    assert "Traceback" not in process.log_text()


@pytest.mark.parametrize("fault", ["refuses", "hangs", "is away"])
def test_a_collector_that_fails_costs_no_request_and_no_end(
    settings: dict[str, Any], tmp_path: Path, full: ScriptedUpstream, fault: str
) -> None:
    del full
    with collecting() as fresh:
        fresh.is_refusing, fresh.is_hanging = fault == "refuses", fault == "hangs"
        environment = {**fresh.environment, "OTEL_BSP_MAX_QUEUE_SIZE": "16"}
        environment["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] = "8"
        if fault == "is away":
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
        with gateway_with(settings, tmp_path, environment) as process:
            slowest = 0.0
            for number in range(60):
                began = time.monotonic()
                answer = process.post(CHAT, chat(), {"x-request-id": f"r{number}"})
                slowest = max(slowest, time.monotonic() - began)
                assert answer.status == 200
            if fault != "is away":
                eventually(lambda: fresh.calls > 0, what="a try to export")
            began = time.monotonic()
            assert process.stop() == 0
            ended = time.monotonic() - began
        # A request that waited for the exporter would wait for its ten seconds, or for a retry's.
        assert slowest < 4.0
        assert ended < 9.0
        assert re.search(r'"event": "spans_lost".*"(failed|dropped)": [1-9]', process.log_text())
        assert "Traceback" not in process.log_text()
