"""A client that goes away takes its engine's work with it; one that reads slowly holds it up."""

import socket
import struct
import time
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL, INT8
from tests.support.behaviours import (
    JSON_TYPE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunk,
    dying_stream,
    endless,
    full_response,
    gated,
    hang,
    head,
    raw,
    respond,
)
from tests.support.engine_wire import DONE, event
from tests.support.gateway_process import GatewayProcess, counting, eventually
from tests.support.raw_client import RawClient
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

PROMPTLY = 1.0
MEGABYTE = 1024 * 1024
WRITE_SECONDS = 2.5
PIECE = event({"choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]})


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"client_write_seconds": WRITE_SECONDS, "idle_seconds": 0.8}


@pytest.mark.parametrize("name", ["demo", "demo-candidate"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_engine_stops_when_the_client_goes_away_before_the_answer(
    gateway: GatewayProcess,
    full: ScriptedUpstream,
    int8: ScriptedUpstream,
    name: str,
    is_stream: bool,
) -> None:
    upstream = full if name == "demo" else int8
    upstream.always(hang())
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(name, stream=is_stream)))
        request = upstream.wait_for_request()
    assert request.disconnected.wait(PROMPTLY)
    assert len(full.requests) + len(int8.requests) == 1


@pytest.mark.parametrize("name", ["demo", "demo-candidate"])
def test_engine_stops_when_the_client_goes_away_within_a_stream(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, name: str
) -> None:
    upstream = full if name == "demo" else int8
    gate = upstream.gate()
    upstream.always(dying_stream(FULL, after_events=3, gate=gate))
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(name, stream=True)))
        client.read_until(b" lies")
        request = upstream.wait_for_request()
    assert request.disconnected.wait(PROMPTLY)
    assert len(full.requests) + len(int8.requests) == 1


def test_engine_stops_when_the_client_goes_away_within_a_held_body(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    int8.always(raw(head(200, [JSON_TYPE, ("content-length", "99")]) + b"{", then="hang"))
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat("demo-candidate")))
        request = int8.wait_for_request()
    assert request.disconnected.wait(PROMPTLY)


def test_engine_stops_when_the_client_goes_away_within_a_continuation(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    gate = full.gate()
    int8.always(dying_stream(INT8, after_events=3))
    full.always(dying_stream(FULL, after_events=3, gate=gate))
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat("demo-candidate", stream=True)))
        request = full.wait_for_request()
        assert gate.reached.wait(5)
    assert request.disconnected.wait(PROMPTLY)


def test_engine_stops_when_the_client_resets(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(hang())
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()))
        request = full.wait_for_request()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert request.disconnected.wait(PROMPTLY)


def test_client_that_goes_away_is_counted(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    full.always(hang())
    with (
        counting(gateway, "penumbra_client_disconnects_total"),
        counting(
            gateway, "penumbra_upstream_attempts_total", variant="full", outcome="client_gone"
        ),
        counting(gateway, "penumbra_failovers_total", by=0),
        gateway.connect() as client,
    ):
        client.send_request(CHAT, dumps(chat()))
        full.wait_for_request()


def test_client_that_goes_away_within_its_request_starts_nothing(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    body = dumps(chat())
    for end in (1, len(body) // 2, len(body) - 1):
        with gateway.connect() as client:
            client.send(
                f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                + body[:end]
            )
    assert gateway.post(CHAT, chat()).status == 200
    assert len(full.requests) == 1


def test_aborted_connection_is_not_used_again(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate = full.gate()
    full.next(gated(STREAM_HEAD + chunk(event({})), gate, chunk(DONE) + LAST_CHUNK))
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        client.read_until(b"{}")
        full.wait_for_request()
    assert full.requests[0].disconnected.wait(PROMPTLY)
    gate.open()
    assert gateway.post(CHAT, chat()).status == 200
    assert full.requests[1].connection != full.requests[0].connection


def wait_until_steady(full: ScriptedUpstream) -> int:
    """How much the upstream has sent once it is held up."""
    request = full.wait_for_request()
    while True:
        before = request.sent_bytes
        time.sleep(0.3)  # that nothing happens any more has no event
        if before and request.sent_bytes == before:
            return before


@pytest.mark.parametrize("name", ["demo", "demo-candidate"])
def test_client_that_does_not_read_holds_the_engine_up(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, name: str
) -> None:
    upstream = full if name == "demo" else int8
    upstream.always(endless(PIECE, 200 * MEGABYTE))
    assert gateway.post("/tokenize", b"{").status == 400
    before = gateway.resident_bytes()
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(name, stream=True)))
        sent = wait_until_steady(upstream)
        grown = gateway.resident_bytes() - before
    assert sent < 40 * MEGABYTE
    assert grown < 20 * MEGABYTE


def test_client_that_reads_again_gets_every_byte(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    total = 30 * MEGABYTE
    full.always(endless(PIECE, total))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        wait_until_steady(full)
        response = client.read_response()
    assert response.status == 200
    assert response.body == PIECE * ((len(response.body) - len(DONE)) // len(PIECE)) + DONE
    assert len(response.body) > total - MEGABYTE


def test_client_that_reads_slowly_is_not_an_idle_engine(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(endless(PIECE, 30 * MEGABYTE))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        wait_until_steady(full)
        time.sleep(1.0)  # longer than idle_seconds
        response = client.read_response()
    assert response.body.endswith(DONE)
    assert len(full.requests) == 1


def test_client_that_never_reads_is_cut(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    full.always(endless(PIECE, 200 * MEGABYTE))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        request = full.wait_for_request()
        assert request.disconnected.wait(3 * WRITE_SECONDS)
        assert b"[DONE]" not in client.read_to_eof()


def test_client_that_never_reads_its_whole_answer_is_cut(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(respond(200, b"x" * (20 * MEGABYTE)))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat()))
        full.wait_for_request()
        time.sleep(2 * WRITE_SECONDS)  # it must be cut while nobody reads
        assert len(client.read_to_eof()) < 20 * MEGABYTE


def test_slow_client_does_not_slow_others(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    full.next(endless(PIECE, 50 * MEGABYTE))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        wait_until_steady(full)
        started = time.monotonic()
        for _ in range(20):
            assert gateway.post(CHAT, chat()).status == 200
        assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("kilobytes", [64, 128, 256, 512, 1024, 3072, 6144])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_connection_of_an_answer_that_nobody_reads_serves_the_next_request(
    gateway: GatewayProcess, full: ScriptedUpstream, kilobytes: int, framing: str
) -> None:
    body = b'"' + b"x" * (kilobytes * 1024) + b'"'
    chunked = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")]) + chunk(body) + LAST_CHUNK
    wire = full_response(200, body) if framing == "length" else chunked
    full.next(raw(wire, then=None))
    with gateway.connect(receive_buffer=4096) as slow:
        slow.send_request(CHAT, dumps(chat()))
        full.wait_for_request().finished.wait(0.3)
        with RawClient(gateway.port, timeout=2.0) as quick:
            quick.send_request(CHAT, dumps(chat()))
            assert quick.read_response().status == 200


def test_pipelined_requests_of_a_client_that_does_not_read_are_bounded(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(respond(200, b'"' + b"x" * MEGABYTE + b'"'))
    before = gateway.resident_bytes()
    with gateway.connect(receive_buffer=4096) as client:
        client.send_request(CHAT, dumps(chat()))
        for _ in range(99):
            client.send_request(CHAT, dumps(chat()))
        full.wait_for_requests(1)
        eventually(lambda: full.requests[-1].finished.is_set())
        assert gateway.resident_bytes() - before < 20 * MEGABYTE
    assert len(full.requests) < 60
