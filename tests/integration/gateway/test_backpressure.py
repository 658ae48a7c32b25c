"""A client that reads slowly holds its engine up, and nobody else; one that never reads is cut."""

import time
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import (
    JSON_TYPE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunk,
    endless,
    error_event,
    full_response,
    head,
    raw,
    respond,
)
from tests.support.engine_wire import DONE, event
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.raw_client import RawClient, request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

MEGABYTE = 1024 * 1024
WRITE_SECONDS = 2.5
PIECE = event({"choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]})
HEAD_EVENT = FULL.events(CHAT, chat())[0]


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"client_write_seconds": WRITE_SECONDS, "idle_seconds": 0.8}


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


@pytest.mark.parametrize("kilobytes", [64, 256, 1024, 2048, 3072, 4096, 6144])
@pytest.mark.parametrize("framing", ["length", "chunked", "events"])
def test_connection_of_an_answer_that_nobody_reads_serves_the_next_request(
    gateway: GatewayProcess, full: ScriptedUpstream, kilobytes: int, framing: str
) -> None:
    body = b'"' + b"x" * (kilobytes * 1024) + b'"'
    chunked = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")]) + chunk(body) + LAST_CHUNK
    wires = {
        "length": full_response(200, body),
        "chunked": chunked,
        "events": STREAM_HEAD + chunk(b"data: [" + body + b"]\n\n") + chunk(DONE) + LAST_CHUNK,
    }
    full.next(raw(wires[framing], then=None))
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


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_stream_after_an_answer_that_is_still_unread_holds_the_engine_up(
    gateway: GatewayProcess, full: ScriptedUpstream, is_pipelined: bool
) -> None:
    full.next(respond(200, b'"' + b"x" * (8 * MEGABYTE) + b'"'), endless(PIECE, 200 * MEGABYTE))
    first = request_bytes(CHAT, dumps(chat()))
    second = request_bytes(CHAT, dumps(chat(stream=True)))
    before = gateway.resident_bytes()
    with gateway.connect(receive_buffer=4096) as client:
        if is_pipelined:
            client.send(first + second)
        else:
            client.send(first)
            full.wait_for_request().finished.wait(5)
            client.send(second)
        full.wait_for_requests(2)
        eventually(lambda: is_held_up(full), timeout=10.0, what="the engine to be held up")
        assert gateway.resident_bytes() - before < 40 * MEGABYTE


def is_held_up(full: ScriptedUpstream) -> bool:
    """Whether the second request's engine has stopped sending, far from its end."""
    before = full.requests[1].sent_bytes
    time.sleep(0.3)  # that nothing happens any more has no event
    sent = full.requests[1].sent_bytes
    assert sent < 100 * MEGABYTE, "the engine is not held up"
    return sent == before > 0


def test_continuation_for_a_client_that_does_not_read_holds_the_engine_up(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    # The error comes in one piece with more than the client's buffers take; the baseline, with no
    # connection open, has to be connected to while the client is known to be slow.
    events = [HEAD_EVENT, *[PIECE] * 3, error_event()]
    int8.always(raw(STREAM_HEAD + b"".join(map(chunk, events)), then="hang"))
    full.close_connections()
    full.always(endless(PIECE, 200 * MEGABYTE))
    before = gateway.resident_bytes()
    with gateway.connect(receive_buffer=4096) as client:
        client.send_request(CHAT, dumps(chat("demo-candidate", stream=True)))
        sent = wait_until_steady(full)
        assert gateway.resident_bytes() - before < 40 * MEGABYTE
    assert sent < 60 * MEGABYTE
