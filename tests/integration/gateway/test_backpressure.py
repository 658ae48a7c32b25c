"""Slow clients: one that reads slowly holds up only its own engine, one that never reads is cut."""

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
from tests.support.gateway_process import GatewayProcess
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


def wait_until_cut(upstream: ScriptedUpstream, count: int = 1) -> int:
    """Wait until a client that never reads is cut; returns the bytes taken of the last answer."""
    request = upstream.wait_for_requests(count)[-1]
    assert request.disconnected.wait(8 * WRITE_SECONDS)
    return request.sent_bytes


def wait_until_steady(upstream: ScriptedUpstream) -> None:
    """Wait until the engine is held up, or at least slow. Polls: a standstill has no event."""
    request = upstream.wait_for_request()
    while True:
        before = request.sent_bytes
        time.sleep(0.3)
        if before and request.sent_bytes == before:
            return


@pytest.mark.parametrize("name", ["demo", "demo-candidate"])
def test_client_that_does_not_read_holds_the_engine_up(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, name: str
) -> None:
    upstream = full if name == "demo" else int8
    upstream.always(endless(PIECE, 200 * MEGABYTE))
    with gateway.growing_at_most(20 * MEGABYTE), gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(name, stream=True)))
        assert wait_until_cut(upstream) < 40 * MEGABYTE


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


def test_client_that_never_reads_sees_no_end(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(endless(PIECE, 200 * MEGABYTE))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        wait_until_cut(full)
        assert DONE not in client.read_to_eof()


def test_client_that_never_reads_its_whole_answer_is_cut(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(respond(200, b"x" * (20 * MEGABYTE)))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat()))
        full.wait_for_request()
        time.sleep(2 * WRITE_SECONDS)  # the client must be cut while it does not read
        assert len(client.read_to_eof()) < 20 * MEGABYTE


def test_slow_client_does_not_slow_others(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    alone = seconds_of_posts(gateway, 20)
    full.reset()
    full.next(endless(PIECE, 50 * MEGABYTE))
    with gateway.connect(receive_buffer=65536) as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        wait_until_steady(full)
        assert seconds_of_posts(gateway, 20) < max(2.0, 4 * alone)


def seconds_of_posts(gateway: GatewayProcess, count: int) -> float:
    started = time.monotonic()
    for _ in range(count):
        assert gateway.post(CHAT, chat()).status == 200
    return time.monotonic() - started


@pytest.mark.parametrize("kilobytes", [64, 256, 1024, 2048, 3072, 4096, 6144])
@pytest.mark.parametrize("framing", ["length", "chunked", "events"])
def test_connection_of_an_unread_answer_serves_the_next_request(
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
    with gateway.growing_at_most(30 * MEGABYTE), gateway.connect(receive_buffer=4096) as client:
        client.send(request_bytes(CHAT, dumps(chat())) * 100)
        full.wait_for_request()
        time.sleep(2 * WRITE_SECONDS)  # it is cut after that, if it has to be
    assert len(full.requests) < 60


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_stream_after_an_answer_that_is_still_unread_holds_the_engine_up(
    gateway: GatewayProcess, full: ScriptedUpstream, is_pipelined: bool
) -> None:
    full.next(respond(200, b'"' + b"x" * (8 * MEGABYTE) + b'"'), endless(PIECE, 200 * MEGABYTE))
    first = request_bytes(CHAT, dumps(chat()))
    second = request_bytes(CHAT, dumps(chat(stream=True)))
    with gateway.growing_at_most(40 * MEGABYTE), gateway.connect(receive_buffer=4096) as client:
        client.send(first + second if is_pipelined else first)
        if not is_pipelined:
            client.read_head()
            client.send(second)
        assert wait_until_cut(full, 2) < 40 * MEGABYTE


def test_continuation_for_a_client_that_does_not_read_holds_the_engine_up(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    # The error comes in one piece with more than the client's buffers take; the baseline, with no
    # connection open, has to be connected to while the client is known to be slow.
    events = [HEAD_EVENT, *[PIECE] * 60, error_event()]
    int8.always(raw(STREAM_HEAD + b"".join(map(chunk, events)), then="hang"))
    full.close_connections()
    full.always(endless(PIECE, 200 * MEGABYTE))
    with gateway.growing_at_most(40 * MEGABYTE), gateway.connect(receive_buffer=4096) as client:
        client.send_request(CHAT, dumps(chat("demo-candidate", stream=True)))
        int8.wait_for_request()
        time.sleep(2 * WRITE_SECONDS)  # it is cut after that, if it has to be
    assert [request for request in full.requests if request.sent_bytes > 40 * MEGABYTE] == []
