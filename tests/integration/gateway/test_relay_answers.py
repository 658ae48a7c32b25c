"""Relay of answers: the client gets the engine's status, headers and every byte of the body."""

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import (
    JSON_TYPE,
    LAST_CHUNK,
    STREAM_HEAD,
    STREAM_TYPE,
    chunk,
    full_response,
    gated,
    head,
    in_pieces,
    raw,
    respond,
    stream_of,
)
from tests.support.engine_wire import engine_error
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.requests import CHAT, COMPLETIONS, RESPONSES, chat, completion, dumps
from tests.support.scripted_upstream import ScriptedUpstream

BODY = b'{ "id":"x",\n"choices" : [], "caf\\u00e9":"\xc3\xa9" }\n'
VARIANTS = ["full", "int8"]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def upstream(variant: str, full: ScriptedUpstream, int8: ScriptedUpstream) -> ScriptedUpstream:
    return full if variant == "full" else int8


def test_unary_body_passes_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str
) -> None:
    upstream.next(respond(200, BODY))
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": variant})
    assert (response.status, response.body) == (200, BODY)
    assert response.header("content-length") == str(len(BODY))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chunked_unary_body_passes_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str, size: int
) -> None:
    pieces = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    start = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")])
    upstream.next(raw(start + b"".join(map(chunk, pieces)) + LAST_CHUNK, then=None))
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": variant})
    assert (response.status, response.body) == (200, BODY)


def test_large_unary_body_passes_byte_for_byte(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str
) -> None:
    body = b'{"data":"' + bytes(range(97, 123)) * 400_000 + b'"}'
    upstream.next(respond(200, body))
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": variant})
    assert response.status == 200
    assert response.body == body


def test_close_delimited_body_passes_whole(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    full.next(raw(head(200, [JSON_TYPE]) + BODY, then="fin"))
    assert gateway.post(CHAT, chat()).body == BODY


def test_chunk_extensions_and_trailers_of_the_engine_are_framing_only(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str
) -> None:
    start = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")])
    size = b"%x" % len(BODY)
    wire = start + size + b";x=y\r\n" + BODY + b"\r\n0\r\nx-sum: 1\r\n\r\n"
    upstream.next(raw(wire, then=None))
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": variant})
    assert (response.status, response.body) == (200, BODY)


@pytest.mark.parametrize("status", [100, 102, 103])
def test_interim_response_is_not_the_answer(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str, status: int
) -> None:
    interim = head(status, [("link", "</x>")] if status == 103 else [])
    upstream.next(raw(interim + full_response(200, BODY), then=None))
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": variant})
    assert (response.status, response.body) == (200, BODY)


@pytest.mark.parametrize("status", [200, 201, 202, 400, 401, 403, 404, 409, 422, 429, 499])
def test_status_and_error_of_the_baseline_pass_unchanged(
    gateway: GatewayProcess, full: ScriptedUpstream, status: int
) -> None:
    body = engine_error("what the engine says", status) + b"\n"
    full.next(respond(status, body, [JSON_TYPE, ("retry-after", "7")]))
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": "full"})
    assert (response.status, response.body) == (status, body)
    assert response.header("retry-after") == "7"
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-failover") is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 499])
def test_error_that_both_builds_give_passes_and_is_no_failure_of_the_candidate(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, status: int
) -> None:
    body = engine_error("what the engine says", status) + b"\n"
    for upstream in (int8, full):
        upstream.next(respond(status, body, [JSON_TYPE, ("retry-after", "7")]))
    attempts = {"model": "demo", "variant": "int8"}
    name = "penumbra_upstream_attempts_total"
    with (
        counting(gateway, name, outcome="client_error", **attempts),
        counting(gateway, name, **attempts),
    ):
        response = gateway.post(CHAT, chat(), {"x-penumbra-variant": "int8"})
    assert (response.status, response.body) == (status, body)
    assert response.header("retry-after") == "7"


def test_answer_without_a_body_passes(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    full.next(raw(head(204, []), then=None))
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()))
        assert client.read_response().status == 204
        client.send_request(CHAT, dumps(chat()))
        assert client.read_response().status == 200


def test_end_to_end_headers_pass(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str
) -> None:
    passing = [("x-engine", "v1"), ("openai-processing-ms", "12"), ("x-many", "1"), ("x-many", "2")]
    upstream.next(respond(200, BODY, [("content-type", "application/json;x=1"), *passing]))
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": variant})
    assert [item for item in response.headers if item in passing] == passing
    assert response.header("content-type") == "application/json;x=1"


def test_hop_by_hop_headers_stop_here(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    stopping = [
        ("connection", "keep-alive, x-private"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-private", "1"),
    ]
    full.next(respond(200, BODY, [JSON_TYPE, *stopping]))
    response = gateway.post(CHAT, chat())
    assert [item for item in response.headers if item in stopping] == []


def test_engine_cannot_speak_for_the_gateway(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    spoofed = {"x-penumbra-variant": "int8", "x-penumbra-reason": "PIN", "x-request-id": "evil"}
    spoofed |= {"x-penumbra-epoch": "999", "x-penumbra-failover": "died"}
    full.next(respond(200, BODY, [JSON_TYPE, *spoofed.items()]))
    response = gateway.post(CHAT, chat(), {"x-request-id": "mine"})
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-reason") == "DEFAULT"
    assert response.header("x-penumbra-epoch") == "7"
    assert response.header("x-penumbra-failover") is None
    assert response.header("x-request-id") == "mine"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
def test_stream_events_pass_unchanged(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str, path: str
) -> None:
    body = {"model": "demo", "stream": True, "messages": [], "prompt": "p", "input": "i"}
    events = FULL.events(path, body)
    upstream.next(stream_of(*events))
    response = gateway.post(path, body, {"x-penumbra-variant": variant})
    assert response.events == events
    assert response.header("content-type") == STREAM_TYPE[1]
    assert response.header("x-penumbra-variant") == variant


@pytest.mark.parametrize(
    "events",
    [
        [b": ping\n\n", *FULL.events(CHAT, chat())],
        [b"data: {}\r\n\r\n", b"data: [DONE]\r\n\r\n"],
        [b"id: 1\nretry: 5\nevent: x\ndata: {}\n\n", b"data: [DONE]\n\n"],
        [b"data:{}\n\n", b"data:[DONE]\n\n"],
        [b'data: {"a":\ndata: 1}\n\n', b"data: [DONE]\n\n"],
    ],
    ids=["comment", "crlf", "fields", "no-blank", "two-lines"],
)
def test_unusual_events_pass_unchanged(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str, events: list[bytes]
) -> None:
    upstream.next(stream_of(*events))
    response = gateway.post(CHAT, chat(stream=True), {"x-penumbra-variant": variant})
    assert response.body == b"".join(events)


def test_event_reaches_the_client_before_the_next_is_made(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str
) -> None:
    events = FULL.events(CHAT, chat())
    gates = [upstream.gate() for _ in events]
    steps = [
        step for event, gate in zip(events, gates, strict=True) for step in (chunk(event), gate)
    ]
    upstream.next(gated(STREAM_HEAD, *steps, LAST_CHUNK))
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(stream=True)), {"x-penumbra-variant": variant})
        assert client.read_head().status == 200
        for event, gate in zip(events, gates, strict=True):
            assert client.read_chunk() == event
            gate.open()
        assert client.read_chunk() == b""


def test_stream_split_at_every_byte_is_the_same_stream(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str
) -> None:
    body = completion(stream=True, max_tokens=1)
    events = FULL.events(COMPLETIONS, body)
    wire = STREAM_HEAD + b"".join(map(chunk, events)) + LAST_CHUNK
    splits = range(1, len(wire))
    upstream.next(*(in_pieces([wire[:split], wire[split:]]) for split in splits))
    headers = {"x-penumbra-variant": variant}
    with gateway.connect() as client:
        for _ in splits:
            client.send_request(COMPLETIONS, dumps(body), headers)
            response = client.read_response()
            assert response.events == events
            assert response.header("x-penumbra-failover") is None


def test_stream_sent_byte_by_byte_is_the_same_stream(
    gateway: GatewayProcess, upstream: ScriptedUpstream, variant: str
) -> None:
    events = FULL.events(COMPLETIONS, completion(max_tokens=1))
    wire = STREAM_HEAD + b"".join(map(chunk, events)) + LAST_CHUNK
    upstream.next(in_pieces([wire[at : at + 1] for at in range(len(wire))]))
    body = completion(stream=True)
    response = gateway.post(COMPLETIONS, body, {"x-penumbra-variant": variant})
    assert response.events == events
