"""Effects of a failover: the request is unchanged, failures are counted, errors are no failover."""

from typing import Any

import pytest

from tests.integration.gateway.conftest import FAILOVER_LIMITS, INT8, failover_models
from tests.support.behaviours import (
    JSON_TYPE,
    chunk,
    close_before_head,
    engine,
    error_event,
    full_response,
    hang,
    head,
    raw,
    respond,
    stream_of,
)
from tests.support.engine_wire import Engine, engine_error
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, COMPLETIONS, StreamView, chat, completion, request_for
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return FAILOVER_LIMITS


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    return failover_models(full, int8)


def assert_failed_over(response: RawResponse, outcomes: set[str]) -> None:
    assert response.status == 200
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-reason") == "SPLIT"
    assert response.header("x-penumbra-failover") in outcomes


def test_failure_is_counted_on_the_candidate(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    int8.always(respond(500, b""))
    attempts = "penumbra_upstream_attempts_total"
    with (
        counting(gateway, attempts, model="demo", variant="int8", outcome="server_error"),
        counting(gateway, attempts, model="demo", variant="int8"),
        counting(gateway, attempts, model="demo", variant="full", outcome="ok"),
        counting(gateway, attempts, model="demo", variant="full"),
        counting(
            gateway,
            "penumbra_failovers_total",
            model="demo",
            from_variant="int8",
            outcome="server_error",
        ),
        counting(gateway, "penumbra_failovers_total"),
    ):
        gateway.post(CHAT, chat())


def test_healthy_candidate_is_no_failover(gateway: GatewayProcess) -> None:
    attempts = "penumbra_upstream_attempts_total"
    with (
        counting(gateway, "penumbra_failovers_total", by=0),
        counting(gateway, attempts, variant="int8", outcome="ok"),
        counting(gateway, attempts, variant="full", by=0),
    ):
        response = gateway.post(CHAT, chat())
    assert response.header("x-penumbra-variant") == "int8"
    assert response.header("x-penumbra-failover") is None


def test_baseline_gets_the_same_request(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    int8.always(respond(500, b""))
    body = b'{ "model":"demo", "messages":[{"role":"user","content":"\\u00e9"}], "x":1e2 }'
    gateway.post(f"{CHAT}?a=b", body, {"x-request-id": "mine", "traceparent": "00-1-2-01"})
    first, second = int8.wait_for_request(), full.wait_for_request()
    assert (second.body, second.target) == (first.body, first.target) == (body, f"{CHAT}?a=b")
    for name in ("x-request-id", "traceparent", "content-type"):
        assert second.header(name) == first.header(name)


def test_baseline_gets_its_own_path_prefix(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    int8.always(respond(500, b""))
    gateway.post(CHAT, chat("prefixed"))
    assert int8.wait_for_request().target == f"/demo-int8{CHAT}"
    assert full.wait_for_request().target == f"/demo-full{CHAT}"


@pytest.mark.parametrize(
    "path", [COMPLETIONS, "/v1/responses", "/v1/embeddings", "/tokenize", "/detokenize"]
)
def test_every_hot_route_fails_over(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str
) -> None:
    int8.always(respond(500, b""))
    assert_failed_over(gateway.post(path, request_for(path)), {"server_error"})


def test_responses_stream_fails_over_before_its_first_event(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    int8.always(stream_of(error_event(), end="fin"))
    response = gateway.post("/v1/responses", request_for("/v1/responses", stream=True))
    assert_failed_over(response, {"server_error"})


def test_pinned_candidate_fails_over_as_well(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    int8.always(respond(500, b""))
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": "int8"})
    assert response.status == 200
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-reason") == "PIN"
    assert response.header("x-penumbra-failover") == "server_error"


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
@pytest.mark.parametrize("is_stream", [False, True])
def test_what_the_candidate_alone_refuses_the_baseline_answers(
    gateway: GatewayProcess, int8: ScriptedUpstream, status: int, is_stream: bool
) -> None:
    int8.always(respond(status, engine_error("the engine's own words", status)))
    attempts = "penumbra_upstream_attempts_total"
    with counting(gateway, attempts, variant="int8", outcome="rejected"):
        response = gateway.post(CHAT, chat(stream=is_stream))
    assert_failed_over(response, {"rejected"})


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
@pytest.mark.parametrize("is_stream", [False, True])
def test_what_both_builds_refuse_is_the_baselines_answer_and_no_failure(
    gateway: GatewayProcess,
    int8: ScriptedUpstream,
    full: ScriptedUpstream,
    status: int,
    is_stream: bool,
) -> None:
    body = engine_error("the engine's own words", status)
    int8.always(respond(status, body))
    full.always(respond(status, body))
    attempts = "penumbra_upstream_attempts_total"
    with counting(gateway, attempts, variant="int8", outcome="client_error"):
        response = gateway.post(CHAT, chat(stream=is_stream))
    assert (response.status, response.body) == (status, body)
    assert response.header("x-penumbra-variant") == "full"


def test_refusal_of_the_candidate_in_small_chunks_is_one(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    body = engine_error("too long", 400)
    pieces = b"".join(chunk(body[at : at + 1]) for at in range(len(body)))
    start = head(400, [JSON_TYPE, ("transfer-encoding", "chunked")])
    int8.always(raw(start + pieces + b"0\r\n\r\n", then=None))
    assert_failed_over(gateway.post(CHAT, chat()), {"rejected"})


def test_error_of_the_baseline_after_a_failover_passes(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    body = engine_error("also ill", 500)
    int8.always(respond(500, b""))
    full.always(respond(500, body))
    response = gateway.post(CHAT, chat())
    assert (response.status, response.body) == (500, body)
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-failover") == "server_error"


def test_kept_connection_that_the_candidate_closed_is_no_failure(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    assert gateway.post(CHAT, chat()).header("x-penumbra-variant") == "int8"
    int8.next(close_before_head())
    attempts = "penumbra_upstream_attempts_total"
    with (
        counting(gateway, attempts, variant="int8", outcome="gateway_limit"),
        counting(gateway, attempts, by=0, variant="int8", outcome="refused"),
    ):
        assert gateway.post(CHAT, chat()).status == 200


def test_failed_connections_of_the_candidate_are_closed(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    int8.always(hang())
    gateway.post(CHAT, chat())
    assert int8.wait_for_request().disconnected.wait(10)


def test_late_first_event_within_the_limit_is_no_failure(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    gate = int8.gate()
    int8.always(engine(INT8, gate=gate))
    with gateway.connect() as client:
        client.send_request(CHAT, b'{"model":"demo","messages":[],"stream":true}')
        assert gate.reached.wait(30)
        gate.open()
        assert client.read_response().header("x-penumbra-variant") == "int8"


def test_large_first_event_is_no_failure(gateway: GatewayProcess, int8: ScriptedUpstream) -> None:
    large = Engine("int8", tokens=("x" * 1_000_000,))
    int8.always(engine(large))
    response = gateway.post(COMPLETIONS, completion(stream=True))
    assert response.header("x-penumbra-variant") == "int8"
    assert StreamView.of(response).text == "x" * 1_000_000


def test_unary_answer_after_a_garbage_length_is_whole(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    wire = full_response(200, b"{}", [JSON_TYPE, ("content-length", "1")])
    int8.always(raw(wire, then="hang"))
    assert_failed_over(gateway.post(CHAT, chat()), {"garbage"})
