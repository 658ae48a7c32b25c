"""Disconnects: the engine stops when its client goes away, and no connection is reused wrongly."""

import socket
import struct
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL, INT8
from tests.support.behaviours import (
    JSON_TYPE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunk,
    dying_stream,
    gated,
    hang,
    head,
    raw,
)
from tests.support.engine_wire import DONE, event
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

PROMPTLY = 10.0
"""Long for a busy machine, and short beside the minute or more after which all else gives up."""
WRITE_SECONDS = 2.5


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
        assert gate.reached.wait(30)
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
