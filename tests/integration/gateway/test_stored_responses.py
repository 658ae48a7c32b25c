"""Responses that an engine keeps: fetched and cancelled by id, at the build that has them."""

import json
from typing import Any

import pytest

from tests.support.behaviours import STREAM_TYPE, chunk, endless, head, raw, respond
from tests.support.gateway_process import GatewayProcess, eventually, key_settings
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.slow_reading import MEGABYTE, wait_until_steady

KEY = "acme-key"
BEARER = {"authorization": f"Bearer {KEY}"}
ANSWER = b'{"id":"resp_1","object":"response", "output":[ ]}'
EVENTS = (
    b'event: response.created\ndata: {"type":"response.created"}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed"}\n\n',
)
STORED = "/v1/responses/resp_1"
MISSING = b'{"error":{"message":"not found","type":"invalid_request_error","code":404}}'


@pytest.fixture(scope="module")
def keys() -> list[dict[str, Any]]:
    return [key_settings("acme", KEY), key_settings("busy", "busy-key", limits={"concurrency": 1})]


@pytest.mark.parametrize("owner", ["full", "int8"])
@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", f"{STORED}?stream=false&x=%20"), ("POST", f"{STORED}/cancel"), ("GET", f"{STORED}/")],
)
def test_stored_response_comes_from_the_build_that_keeps_it(
    gateway: GatewayProcess,
    full: ScriptedUpstream,
    int8: ScriptedUpstream,
    owner: str,
    method: str,
    target: str,
) -> None:
    for upstream in (full, int8):
        is_owner = upstream.name == owner
        upstream.always(respond(200, ANSWER) if is_owner else respond(404, MISSING))
    with gateway.connect() as client:
        client.send(request_bytes(target, b"", {**BEARER, "x-request-id": "r-1"}, method=method))
        response = client.read_response()
    assert (response.status, response.body) == (200, ANSWER)
    assert response.header("x-penumbra-variant") == owner
    assert response.header("x-request-id") == "r-1"
    upstream = full if owner == "full" else int8
    request = upstream.requests[-1]
    assert (request.method, request.target) == (method, target.removesuffix("/"))
    assert request.header("authorization") is None


def test_response_is_asked_of_the_build_that_gave_it_first(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    body = {"model": "demo-candidate", "input": "text"}
    given = gateway.post("/v1/responses", body, BEARER).json()["id"]
    for upstream in (full, int8):
        upstream.always(respond(200, ANSWER))
    answer = gateway.get(f"/v1/responses/{given}", BEARER)
    assert (answer.status, answer.header("x-penumbra-variant")) == (200, "int8")
    assert full.requests == []


def test_stored_response_that_streams_passes_piece_by_piece(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    start = head(200, [STREAM_TYPE, ("transfer-encoding", "chunked")])
    full.always(raw(start + b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n", then=None))
    response = gateway.get(f"{STORED}?stream=true", BEARER)
    assert (response.status, response.body) == (200, b"".join(EVENTS))
    assert (response.header("content-type") or "").startswith("text/event-stream")


def test_large_stored_response_passes_whole(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    body = json.dumps({"text": "x" * 5_000_000}).encode()
    full.always(respond(200, body))
    assert gateway.get(STORED, BEARER).body == body


def test_response_that_no_build_keeps_is_404(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    full.always(respond(404, MISSING))
    int8.always(respond(500, b"broken"))
    response = gateway.get(STORED, BEARER)
    assert (response.status, response.error["code"]) == (404, "request_not_found")


def test_builds_that_do_not_answer_are_503(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    for upstream in (full, int8):
        upstream.always(raw(b"", then="fin"))
    response = gateway.get(STORED, BEARER)
    assert (response.status, response.error["code"]) == (503, "upstream_unavailable")


def test_refusal_of_the_build_that_keeps_a_response_passes(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    full.always(respond(404, MISSING))
    int8.always(respond(400, MISSING))
    with gateway.connect() as client:
        client.send(request_bytes(f"{STORED}/cancel", b"", BEARER))
        response = client.read_response()
    assert (response.status, response.body) == (400, MISSING)


def test_stored_response_wants_a_key(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    assert gateway.get(STORED).error["code"] == "invalid_api_key"
    assert full.requests == []


def test_stored_responses_leave_no_slot_of_their_tenant_taken(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    busy = {"authorization": "Bearer busy-key"}
    for behaviour in (
        respond(200, ANSWER),
        respond(404, MISSING),
        raw(b"", then="fin"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nxx", then="fin"),
        raw(head(200, [("transfer-encoding", "chunked")]) + chunk(b"x"), then="rst"),
    ):
        full.always(behaviour)
        int8.always(behaviour)
        with gateway.connect() as client:
            client.send(request_bytes(STORED, b"", busy, method="GET"))
            client.read_head()
    full.always(respond(200, ANSWER))
    eventually(lambda: gateway.post(CHAT, chat(), busy).status == 200)


def test_client_that_leaves_ends_the_answer_at_the_engine(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    busy = {"authorization": "Bearer busy-key"}
    full.always(endless(b'data: {"type":"response.output_text.delta"}\n\n' * 200, 500 * MEGABYTE))
    with gateway.connect() as client:
        client.send(request_bytes(f"{STORED}?stream=true", b"", busy, method="GET"))
        assert client.read_head().status == 200
        client.read_chunk()
    assert full.wait_for_request().disconnected.wait(30)
    full.always(respond(200, ANSWER))
    eventually(lambda: gateway.post(CHAT, chat(), busy).status == 200)


def test_client_that_does_not_read_stops_the_engine(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(endless(b'data: {"type":"response.output_text.delta"}\n\n' * 2000, 500 * MEGABYTE))
    with gateway.connect(receive_buffer=4096) as client, gateway.growing_at_most(32 * 1024 * 1024):
        client.send(request_bytes(f"{STORED}?stream=true", b"", BEARER, method="GET"))
        wait_until_steady(full)
