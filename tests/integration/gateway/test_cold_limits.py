"""Limits on heads, and on what clients send to the routes that the gateway answers itself."""

import contextlib
import time
from typing import Any

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

SLOW_SECONDS = 0.6
LINES = 72
"""`limits.header_lines` where none is configured."""
FEEDBACK = "/v1/feedback"
START = f"POST {FEEDBACK} HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {
        "header_seconds": SLOW_SECONDS,
        "body_seconds": SLOW_SECONDS,
        "keep_alive_seconds": SLOW_SECONDS,
    }


def with_lines(path: str, method: str, count: int) -> bytes:
    """A request with so many header lines, three of which every request here has."""
    more = {f"x-{number}": "1" for number in range(count - 3)}
    return request_bytes(path, dumps(chat()), more, method=method)


@pytest.mark.parametrize(("path", "method"), [(CHAT, "POST"), ("/v1/models", "GET")])
def test_head_of_as_many_lines_as_allowed_is_served(
    gateway: GatewayProcess, path: str, method: str
) -> None:
    with gateway.connect() as client:
        for _ in range(2):
            client.send(with_lines(path, method, LINES))
            assert client.read_response().status == 200


@pytest.mark.parametrize("count", [LINES + 1, 100, 101, 1000])
@pytest.mark.parametrize(("path", "method"), [(CHAT, "POST"), ("/v1/models", "GET")])
def test_head_of_more_lines_is_refused_in_words(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, method: str, count: int
) -> None:
    with gateway.connect() as client:
        client.send(with_lines(path, method, count))
        (response,) = client.read_responses_to_eof()
    assert (response.status, response.error["code"]) == (431, "header_too_large")
    assert "limits.header_lines" in response.error["message"]
    assert full.requests == []


def test_repeated_lines_count_each(gateway: GatewayProcess) -> None:
    data = request_bytes(CHAT, dumps(chat())).replace(
        b"host:", b"x-forwarded-for: 1.1.1.1\r\n" * LINES + b"host:"
    )
    with gateway.connect() as client:
        client.send(data)
        assert client.read_response().status == 431


def trailing(path: str, trailer: bytes) -> bytes:
    """A chunked request with a trailer and without its end."""
    body = dumps(chat())
    head = request_bytes(path, b"", {"transfer-encoding": "chunked"}, method="GET")
    return head.replace(b"GET", b"POST", 1) + b"%x\r\n%b\r\n0\r\n%b" % (len(body), body, trailer)


@pytest.mark.parametrize("path", [CHAT, FEEDBACK])
@pytest.mark.parametrize("line", [b"x-a: 1\r\n", b"x-a: " + b"a" * 100_000, b"x" * 100_000])
def test_trailer_without_end_is_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, line: bytes
) -> None:
    with gateway.connect() as client, contextlib.suppress(ConnectionError):
        client.send(trailing(path, b""))
        for _ in range(300):
            client.send(line)
        response = client.read_response()
        assert response.status in (408, 431)
    assert full.requests == []


@pytest.mark.parametrize("path", [CHAT, FEEDBACK])
def test_extension_of_a_chunk_without_end_is_refused(gateway: GatewayProcess, path: str) -> None:
    data = trailing(path, b"").removesuffix(b"\r\n0\r\n")
    with gateway.connect() as client, contextlib.suppress(ConnectionError):
        client.send(data + b"\r\n1;a=")
        for _ in range(100):
            client.send(b"x" * 100_000)
        assert client.read_response().status in (408, 431)


def test_small_chunks_are_no_trailer(gateway: GatewayProcess) -> None:
    body = dumps(chat(user="u" * 20_000))
    head = request_bytes(CHAT, b"", {"transfer-encoding": "chunked"}, method="GET")
    chunks = b"".join(b"1;ext=1234567\r\n%c\r\n" % byte for byte in body)
    with gateway.connect() as client:
        client.send(head.replace(b"GET", b"POST", 1))
        client.send(chunks + b"0\r\nx-a: 1\r\n\r\n")
        assert client.read_response().status == 200


def test_malformed_body_of_feedback_is_refused_at_once(gateway: GatewayProcess) -> None:
    begin = time.monotonic()
    with gateway.connect() as client:
        client.send(UNFINISHED["no_last_chunk"].encode() + b"nonsense\r\n")
        (response,) = client.read_responses_to_eof()
    assert (response.status, response.error["code"]) == (400, "invalid_request")
    assert time.monotonic() - begin < 20 * SLOW_SECONDS


UNFINISHED = {
    "nothing": f"{START}content-length: 40\r\n\r\n",
    "a_part": f'{START}content-length: 40\r\n\r\n{{"request_id"',
    "no_last_chunk": f"{START}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n",
    "expects_100": f"{START}expect: 100-continue\r\ncontent-length: 40\r\n\r\n",
}


@pytest.mark.parametrize("data", UNFINISHED.values(), ids=UNFINISHED.keys())
def test_body_of_feedback_that_does_not_come_is_408(gateway: GatewayProcess, data: str) -> None:
    begin = time.monotonic()
    with gateway.connect() as client:
        client.send(data.encode())
        response = client.read_response()
        assert (response.status, response.error["code"]) == (408, "request_timeout")
        assert client.is_closed()
    assert time.monotonic() - begin >= SLOW_SECONDS


def test_body_of_feedback_that_trickles_is_408(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(f"{START}content-length: 4000\r\n\r\n".encode())
        end = time.monotonic() + 20 * SLOW_SECONDS
        client.socket.settimeout(SLOW_SECONDS / 10)
        while time.monotonic() < end:
            client.send(b" ")
            try:
                client.read_until(b"408 ")
            except TimeoutError:
                continue
            return
    raise AssertionError("the trickle was never refused")


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nope", CHAT])
def test_connection_of_an_unfinished_body_is_closed(gateway: GatewayProcess, path: str) -> None:
    with gateway.connect() as client:
        client.send(f"GET {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n{{".encode())
        assert client.read_response().status in (200, 404, 405)
        assert client.is_closed()


def test_client_that_leaves_within_its_feedback_is_no_error_of_the_gateway(
    gateway: GatewayProcess,
) -> None:
    for _ in range(5):
        with gateway.connect() as client:
            client.send(UNFINISHED["a_part"].encode())
    assert gateway.get("/health").status == 200
    assert "Traceback" not in gateway.log_text()
