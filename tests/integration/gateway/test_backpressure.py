"""A client that does not read holds up its own engine, slows no other client, and is cut."""

import time
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import (
    STREAM_HEAD,
    chunk,
    endless,
    error_event,
    raw,
    respond,
)
from tests.support.engine_wire import DONE
from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.slow_reading import MEGABYTE, PIECE, wait_until_steady

WRITE_SECONDS = 2.5
HEAD_EVENT = FULL.events(CHAT, chat())[0]


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"client_write_seconds": WRITE_SECONDS, "idle_seconds": 0.8}


def wait_until_cut(upstream: ScriptedUpstream, count: int = 1) -> int:
    """Wait until a client that never reads is cut; returns the bytes taken of the last answer."""
    request = upstream.wait_for_requests(count)[-1]
    assert request.disconnected.wait(8 * WRITE_SECONDS)
    return request.sent_bytes


@pytest.mark.parametrize("name", ["demo", "demo-candidate"])
def test_client_that_does_not_read_holds_the_engine_up(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, name: str
) -> None:
    upstream = full if name == "demo" else int8
    upstream.always(endless(PIECE, 200 * MEGABYTE))
    with gateway.growing_at_most(20 * MEGABYTE), gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(name, stream=True)))
        assert wait_until_cut(upstream) < 40 * MEGABYTE


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
