"""A candidate that fails before its client has seen anything: the baseline answers instead."""

from typing import Any

import pytest

from tests.integration.gateway.conftest import INT8, model
from tests.support.behaviours import (
    JSON_TYPE,
    STREAM_HEAD,
    STREAM_TYPE,
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
from tests.support.engine_wire import DONE, TEXT, Engine, engine_error
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, COMPLETIONS, StreamView, chat, completion, request_for
from tests.support.scripted_connection import Behaviour
from tests.support.scripted_upstream import ScriptedUpstream

HTML = b"<html><body><h1>Not Found</h1></body></html>"
HTML_TYPE = ("content-type", "text/html")


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"candidate_first_byte_seconds": 0.4, "idle_seconds": 0.5, "connect_seconds": 0.5}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    split = {"split": {"int8": 100}}
    return {
        "demo": model(full, int8, flag=split),
        "prefixed": {
            "baseline": "full",
            "variants": {
                "full": {"url": f"{full.url}/demo-full"},
                "int8": {"url": f"{int8.url}/demo-int8"},
            },
            "flag": split,
        },
    }


BEFORE_HEAD: dict[str, tuple[Behaviour, set[str]]] = {
    "closes": (close_before_head(), {"refused"}),
    "resets": (close_before_head("rst"), {"refused"}),
    "hangs": (hang(), {"timeout"}),
    "hangs_in_the_head": (raw(b"HTTP/1.1 200 OK\r\ncontent-", then="hang"), {"timeout"}),
    "closes_in_the_head": (raw(b"HTTP/1.1 200 OK\r\ncontent-"), {"refused", "garbage", "died"}),
    "says_500": (respond(500, engine_error("boom", 500)), {"server_error"}),
    "says_500_in_html": (respond(500, HTML, [HTML_TYPE]), {"server_error"}),
    "says_502": (respond(502, HTML, [HTML_TYPE]), {"server_error"}),
    "says_503": (respond(503, b"", []), {"server_error"}),
    "says_504": (respond(504, HTML, [HTML_TYPE]), {"server_error"}),
    "says_500_and_hangs": (
        raw(head(500, [("content-length", "9")]), then="hang"),
        {"server_error"},
    ),
    "lacks_the_route": (respond(404, b'{"detail":"Not Found"}'), {"garbage"}),
    "proxy_says_404": (respond(404, HTML, [HTML_TYPE]), {"garbage"}),
    "proxy_says_403": (respond(403, b"", []), {"garbage"}),
    "not_http": (raw(b"\x15\x03\x01\x00\x02\x02\x46"), {"garbage"}),
    "not_http_and_open": (raw(b"hello there\r\n\r\n", then="hang"), {"garbage"}),
    "two_lengths": (
        raw(head(200, [("content-length", "2"), ("content-length", "3")]) + b"{}x", then="hang"),
        {"garbage"},
    ),
    "huge_head": (raw(head(200, [("x-long", "a" * 1_000_000)]), then="hang"), {"garbage"}),
    "switches_protocols": (raw(head(101, [("upgrade", "x")]), then="hang"), {"garbage"}),
}

UNARY_BODY: dict[str, tuple[Behaviour, set[str]]] = {
    "dies_in_the_body": (
        raw(head(200, [JSON_TYPE, ("content-length", "99")]) + b'{"id":"x"'),
        {"died"},
    ),
    "resets_in_the_body": (
        raw(head(200, [JSON_TYPE, ("content-length", "99")]) + b'{"id":"x"', then="rst"),
        {"died"},
    ),
    "hangs_in_the_body": (
        raw(head(200, [JSON_TYPE, ("content-length", "99")]) + b'{"id":"x"', then="hang"),
        {"timeout"},
    ),
    "hangs_after_the_head": (
        raw(head(200, [JSON_TYPE, ("content-length", "99")]), then="hang"),
        {"timeout"},
    ),
    "dies_between_chunks": (
        raw(head(200, [JSON_TYPE, ("transfer-encoding", "chunked")]) + chunk(b'{"id":')),
        {"died"},
    ),
    "breaks_a_chunk": (
        raw(head(200, [JSON_TYPE, ("transfer-encoding", "chunked")]) + chunk(b'{"i') + b"zz\r\n"),
        {"died", "garbage"},
    ),
}

FIRST_EVENT: dict[str, tuple[Behaviour, set[str]]] = {
    "head_and_hangs": (raw(STREAM_HEAD, then="hang"), {"timeout"}),
    "head_and_closes": (raw(STREAM_HEAD), {"died"}),
    "head_and_ends": (stream_of(), {"garbage", "died"}),
    "part_of_an_event_and_hangs": (raw(STREAM_HEAD + chunk(b"data: {"), then="hang"), {"timeout"}),
    "part_of_an_event_and_closes": (raw(STREAM_HEAD + chunk(b"data: {}\n")), {"died"}),
    "part_of_an_event_and_ends": (stream_of(b'data: {"id":'), {"garbage", "died"}),
    "only_a_comment": (stream_of(b": ping\n\n"), {"garbage", "died"}),
    "comment_and_hangs": (stream_of(b": ping\n\n", end="hang"), {"timeout"}),
    "text": (stream_of(b"data: oops\n\n", DONE), {"garbage"}),
    "number": (stream_of(b"data: 1\n\n", DONE), {"garbage"}),
    "array": (stream_of(b'data: [{"id":1}]\n\n', DONE), {"garbage"}),
    "null": (stream_of(b"data: null\n\n", DONE), {"garbage"}),
    "truncated": (stream_of(b'data: {"id":\n\n', DONE), {"garbage"}),
    "bad_utf8": (stream_of(b'data: {"id":"\xff\xfe"}\n\n', DONE), {"garbage"}),
    "error": (stream_of(error_event(), DONE), {"server_error"}),
    "error_and_closes": (stream_of(error_event(), end="fin"), {"server_error"}),
    "error_spelt_with_blanks": (
        stream_of(b'data: { "error" : {"message":"x"} }\n\n', DONE),
        {"server_error", "garbage"},
    ),
    "error_after_a_comment": (stream_of(b": ping\n\n" + error_event(), DONE), {"server_error"}),
    "error_in_two_chunks": (stream_of(error_event()[:9], error_event()[9:]), {"server_error"}),
    "done_at_once": (stream_of(DONE), {"garbage", "died"}),
    "html_as_a_stream": (stream_of(HTML), {"garbage", "died"}),
}


def assert_failed_over(response: RawResponse, outcomes: set[str]) -> None:
    assert response.status == 200
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-reason") == "SPLIT"
    assert response.header("x-penumbra-failover") in outcomes


@pytest.mark.parametrize("name", [*BEFORE_HEAD, *UNARY_BODY])
def test_unary_answer_comes_from_the_baseline_when_the_candidate(
    gateway: GatewayProcess, int8: ScriptedUpstream, name: str
) -> None:
    behaviour, outcomes = (BEFORE_HEAD | UNARY_BODY)[name]
    int8.always(behaviour)
    response = gateway.post(CHAT, chat())
    assert_failed_over(response, outcomes)
    answer = response.json()
    assert answer["id"].startswith("chatcmpl-full-")
    assert answer["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("name", [*BEFORE_HEAD, *FIRST_EVENT])
def test_stream_comes_from_the_baseline_when_the_candidate(
    gateway: GatewayProcess, int8: ScriptedUpstream, name: str
) -> None:
    behaviour, outcomes = (BEFORE_HEAD | FIRST_EVENT)[name]
    int8.always(behaviour)
    response = gateway.post(CHAT, chat(stream=True))
    assert_failed_over(response, outcomes)
    view = StreamView.of(response)
    assert (view.text, view.finish_reasons, view.done_count) == (TEXT, ["stop"], 1)
    assert view.errors == []
    assert response.header("content-type") == STREAM_TYPE[1]


def test_answer_comes_from_the_baseline_when_the_candidate_refuses(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    with int8.refusing():
        assert_failed_over(gateway.post(CHAT, chat()), {"refused"})


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


@pytest.mark.parametrize("name", ["closes", "hangs", "says_500", "lacks_the_route", "not_http"])
def test_failure_is_counted_by_its_outcome(
    gateway: GatewayProcess, int8: ScriptedUpstream, name: str
) -> None:
    behaviour, (outcome,) = BEFORE_HEAD[name]
    int8.always(behaviour)
    with counting(gateway, "penumbra_failovers_total", from_variant="int8", outcome=outcome):
        gateway.post(CHAT, chat(stream=True))


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
def test_error_of_the_candidates_engine_is_its_answer(
    gateway: GatewayProcess,
    int8: ScriptedUpstream,
    full: ScriptedUpstream,
    status: int,
    is_stream: bool,
) -> None:
    body = engine_error("the engine's own words", status)
    int8.always(respond(status, body))
    response = gateway.post(CHAT, chat(stream=is_stream))
    assert (response.status, response.body) == (status, body)
    assert response.header("x-penumbra-variant") == "int8"
    assert response.header("x-penumbra-failover") is None
    assert full.requests == []


def test_error_of_the_candidates_engine_in_small_chunks_is_its_answer(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    body = engine_error("too long", 400)
    pieces = b"".join(chunk(body[at : at + 1]) for at in range(len(body)))
    start = head(400, [JSON_TYPE, ("transfer-encoding", "chunked")])
    int8.always(raw(start + pieces + b"0\r\n\r\n", then=None))
    response = gateway.post(CHAT, chat())
    assert (response.status, response.body) == (400, body)


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
    response = gateway.post(CHAT, chat())
    assert response.header("x-penumbra-variant") == "int8"
    assert response.header("x-penumbra-failover") is None


def test_failed_connections_of_the_candidate_are_closed(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    int8.always(hang())
    gateway.post(CHAT, chat())
    assert int8.wait_for_request().disconnected.wait(1)


def test_late_first_event_within_the_limit_is_no_failure(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    gate = int8.gate()
    int8.always(engine(INT8, gate=gate))
    with gateway.connect() as client:
        client.send_request(CHAT, b'{"model":"demo","messages":[],"stream":true}')
        assert gate.reached.wait(5)
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
