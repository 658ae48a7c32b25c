"""Limits on the size and the speed of what a client sends."""

import contextlib
import time
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import engine
from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import RawClient, request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

BODY_BYTES = 64 * 1024
HEADER_BYTES = 4 * 1024
SLOW_SECONDS = 0.6
CONNECTIONS = 12
"""As many as a variant may have open at once."""


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {
        "body_bytes": BODY_BYTES,
        "header_bytes": HEADER_BYTES,
        "header_seconds": SLOW_SECONDS,
        "body_seconds": SLOW_SECONDS,
        "keep_alive_seconds": SLOW_SECONDS,
        "upstream_connections": CONNECTIONS,
    }


def body_of(size: int) -> bytes:
    """A valid request of exactly the given number of bytes."""
    missing = size - len(dumps(chat(user="")))
    return dumps(chat(user="u" * missing))


def chunked_head(headers: str = "") -> bytes:
    return (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n{headers}\r\n".encode()
    )


def test_body_at_the_limit_is_accepted(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    body = body_of(BODY_BYTES)
    assert gateway.post(CHAT, body).status == 200
    assert full.wait_for_request().body == body


def test_body_over_the_limit_is_refused(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    response = gateway.post(CHAT, body_of(BODY_BYTES + 1))
    assert (response.status, response.error["code"]) == (413, "request_too_large")
    assert full.requests == []


@pytest.mark.parametrize("length", [BODY_BYTES + 1, 2**31, 2**63 - 1])
def test_announced_length_over_the_limit_is_refused_before_the_body(
    gateway: GatewayProcess, length: int
) -> None:
    with gateway.connect() as client:
        client.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode())
        response = client.read_response()
        assert (response.status, response.error["code"]) == (413, "request_too_large")
        assert client.is_closed()


def test_refusal_of_a_large_body_reaches_a_client_that_goes_on_sending(
    gateway: GatewayProcess,
) -> None:
    body = body_of(600_000)
    with gateway.connect() as client:
        client.send_request(CHAT, body)
        assert client.read_response().status == 413


def test_chunked_body_at_the_limit_is_accepted(gateway: GatewayProcess) -> None:
    body = body_of(BODY_BYTES)
    with gateway.connect() as client:
        client.send(chunked_head() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert client.read_response().status == 200


def test_chunked_body_is_refused_as_soon_as_it_is_over_the_limit(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(chunked_head() + b"%x\r\n" % (BODY_BYTES * 2) + b" " * (BODY_BYTES + 1))
        response = client.read_response()
        assert (response.status, response.error["code"]) == (413, "request_too_large")
        assert client.is_closed()


def test_many_small_chunks_count_together(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(chunked_head() + b"400\r\n%b\r\n" % (b" " * 1024) * 64 + b"1\r\n \r\n")
        assert client.read_response().status == 413


def test_expect_continue_is_answered_before_the_body(gateway: GatewayProcess) -> None:
    body = dumps(chat())
    with gateway.connect() as client:
        head = request_bytes(CHAT, body, {"expect": "100-continue"})[: -len(body)]
        client.send(head)
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(body)
        assert client.read_response().status == 200


def test_expect_continue_of_a_body_that_came_along_is_still_answered(
    gateway: GatewayProcess,
) -> None:
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()), {"expect": "100-continue"})
        assert client.read_response().status == 200


def test_expect_continue_of_a_large_body_is_refused_at_once(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            f"content-length: {BODY_BYTES + 1}\r\n\r\n".encode()
        )
        response = client.read_response()
        assert (response.status, response.interim) == (413, [])


def long_heads() -> dict[str, bytes]:
    start = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n".encode()
    size = HEADER_BYTES
    return {
        "one_line": start + b"x-long: " + b"a" * size + b"\r\n\r\n",
        "many_lines": start + b"x-a: b\r\n" * (size // 8) + b"\r\n",
        "long_name": start + b"x" * size + b": b\r\n\r\n",
        "long_target": b"POST "
        + CHAT.encode()
        + b"?q="
        + b"a" * size
        + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        "line_without_end": start + b"x-long: " + b"a" * size,
        "target_without_end": b"POST /" + b"a" * size,
        "method_without_end": b"A" * (size + 1),
        "other_route": b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * size + b"\r\n\r\n",
    }


@pytest.mark.parametrize("head", long_heads().values(), ids=long_heads().keys())
def test_head_over_the_limit_is_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, head: bytes
) -> None:
    with gateway.connect() as client:
        client.send(head)
        response = client.read_response()
        assert response.status in (431, 400)  # 400: no HTTP method is that long
        assert (response.status == 431) == (not head.startswith(b"AA"))
        assert client.is_closed()
    assert full.requests == []


def test_head_over_the_limit_is_refused_when_it_comes_in_small_pieces(
    gateway: GatewayProcess,
) -> None:
    with gateway.connect() as client:
        client.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n".encode())
        for _ in range(HEADER_BYTES // 64):
            client.send(b"x-piece: " + b"p" * 53 + b"\r\n")
        response = client.read_response()
        assert (response.status, response.error["code"]) == (431, "header_too_large")


def test_head_just_below_the_limit_is_accepted(gateway: GatewayProcess) -> None:
    assert gateway.post(CHAT, chat(), {"x-long": "a" * (HEADER_BYTES - 400)}).status == 200


def test_large_body_in_one_segment_is_no_large_head(gateway: GatewayProcess) -> None:
    assert gateway.post(CHAT, body_of(HEADER_BYTES * 3)).status == 200


def trickle(client: RawClient, data: bytes) -> None:
    """Send a byte now and then until the gateway has had enough."""
    for byte in data:
        try:
            client.send(bytes([byte]))
        except OSError:
            return
        time.sleep(SLOW_SECONDS / 8)


def test_head_that_trickles_in_is_refused_and_closed(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        trickle(client, b"POST /v1/chat")
        response = client.read_response()
        assert (response.status, response.error["code"]) == (408, "request_timeout")
        assert client.is_closed()


def test_second_head_that_stops_is_refused_and_closed(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()))
        assert client.read_response().status == 200
        client.send(b"POST /v1/chat")
        assert client.read_response().status == 408
        assert client.is_closed()


@pytest.mark.parametrize("begun", [b"G", b"POST /v1/chat", b"GET /health HTTP/1.1\r\nhost: x\r\n"])
def test_head_that_began_while_an_answer_was_under_way_does_not_stay(
    gateway: GatewayProcess, full: ScriptedUpstream, begun: bytes
) -> None:
    gate = full.gate()
    full.next(engine(FULL, gate=gate))
    with gateway.connect() as client:
        client.send(request_bytes(CHAT, dumps(chat())) + begun)
        assert gate.reached.wait(30)
        gate.open()
        assert client.read_response().status == 200
        assert client.read_response().status == 408
        assert client.is_closed()


@pytest.mark.parametrize("begun", [b"", b'{"model'])
def test_body_that_began_while_an_answer_was_under_way_does_not_stay(
    gateway: GatewayProcess, full: ScriptedUpstream, begun: bytes
) -> None:
    gate = full.gate()
    full.next(engine(FULL, gate=gate))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n".encode()
    with gateway.connect() as client:
        client.send(request_bytes(CHAT, dumps(chat())) + head + begun)
        assert gate.reached.wait(30)
        gate.open()
        assert client.read_response().status == 200
        assert client.read_response().status == 408
        assert client.is_closed()


def test_body_that_trickles_in_is_refused_and_closed(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    with gateway.connect() as client:
        client.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n".encode())
        trickle(client, b'{"model":"demo')
        response = client.read_response()
        assert (response.status, response.error["code"]) == (408, "request_timeout")
        assert client.is_closed()
    assert full.requests == []


def test_chunked_body_that_stops_is_refused_and_closed(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(chunked_head() + b'5\r\n{"mod\r\n')
        assert client.read_response().status == 408
        assert client.is_closed()


@pytest.mark.parametrize("path", ["/nope", "/health", "/v1/models"])
def test_body_of_another_route_that_stops_does_not_stay(gateway: GatewayProcess, path: str) -> None:
    with gateway.connect() as client:
        client.send(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\nabc".encode())
        client.read_to_eof()


def test_idle_connection_is_closed_in_silence(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()))
        assert client.read_response().status == 200
        started = time.monotonic()
        assert client.is_closed()
        assert time.monotonic() - started < 20 * SLOW_SECONDS


def test_connection_that_never_speaks_is_closed(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.read_to_eof()


def test_slow_client_does_not_slow_others(gateway: GatewayProcess) -> None:
    with gateway.connect() as slow:
        slow.send(chunked_head())
        assert gateway.post(CHAT, chat()).status == 200


def test_connections_to_an_engine_are_limited_and_all_of_them_used(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate = full.gate()
    full.always(engine(FULL, gate=gate))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(CONNECTIONS)]
        for client in clients:
            client.send_request(CHAT, dumps(chat()))
        full.wait_for_requests(CONNECTIONS)
        refused = gateway.post(CHAT, chat())
        gate.open()
        assert [client.read_response().status for client in clients] == [200] * CONNECTIONS
    assert (refused.status, refused.error["code"]) == (503, "upstream_unavailable")
    assert len(full.requests) == CONNECTIONS
