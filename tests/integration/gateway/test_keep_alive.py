"""Keep-alive: connections are reused on both sides and closed when either side asks for it."""

import contextlib

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import (
    JSON_TYPE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunk,
    close_before_head,
    engine,
    full_response,
    head,
    raw,
    respond,
)
from tests.support.engine_wire import TEXT
from tests.support.gateway_process import GatewayProcess, counting, eventually
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, StreamView, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

GOOD = b'{"id":"good"}'


def http_1_0(body: bytes, headers: str = "") -> bytes:
    lines = f"POST {CHAT} HTTP/1.0\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return lines.encode() + body


def test_requests_of_one_client_use_one_connection_to_the_engine(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    with gateway.connect() as client:
        for number in range(10):
            client.send_request(CHAT, dumps(chat(stream=number % 2 == 0)))
            assert client.read_response().status == 200
    assert len({request.connection for request in full.requests}) == 1


def test_requests_of_different_clients_use_one_connection_to_the_engine(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    for _ in range(5):
        gateway.post(CHAT, chat())
    assert len({request.connection for request in full.requests}) == 1


def test_requests_at_once_use_connections_of_their_own(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate = full.gate()
    full.always(engine(FULL, gate=gate))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(8)]
        for client in clients:
            client.send_request(CHAT, dumps(chat()))
        requests = full.wait_for_requests(8)
        gate.open()
        assert [client.read_response().status for client in clients] == [200] * 8
    assert len({request.connection for request in requests}) == 8


def test_engine_that_says_close_gets_a_new_connection(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(respond(200, GOOD, [JSON_TYPE, ("connection", "close")]))
    with gateway.connect() as client:
        for _ in range(2):
            client.send_request(CHAT, dumps(chat()))
            assert client.read_response().status == 200
    first, second = full.requests
    assert first.connection != second.connection
    assert first.disconnected.wait(10)


def test_engine_of_http_1_0_gets_a_new_connection(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    wire = full_response(200, GOOD).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    full.next(raw(wire, then=None))
    assert gateway.post(CHAT, chat()).body == GOOD
    gateway.post(CHAT, chat())
    assert len({request.connection for request in full.requests}) == 2


def test_idle_connection_that_the_engine_closed_is_replaced(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    for _ in range(3):
        assert gateway.post(CHAT, chat()).status == 200
        full.close_connections()
    assert len(full.requests) == 3


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_kept_connection_that_the_engine_closes_on_the_next_request_is_replaced(
    gateway: GatewayProcess, full: ScriptedUpstream, end: str
) -> None:
    gateway.post(CHAT, chat())
    full.next(close_before_head("rst" if end == "rst" else "fin"))
    with counting(gateway, "penumbra_upstream_attempts_total", by=0, outcome="refused"):
        assert gateway.post(CHAT, chat()).status == 200
    assert [request.body for request in full.requests] == [dumps(chat())] * 3


def test_client_that_says_close_is_closed(gateway: GatewayProcess) -> None:
    for is_stream in (False, True):
        with gateway.connect() as client:
            client.send_request(CHAT, dumps(chat(stream=is_stream)), {"connection": "close"})
            response = client.read_response()
            assert response.status == 200
            assert (response.header("connection") or "").lower() == "close"
            assert client.is_closed()


def test_client_that_says_nothing_is_kept(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()))
        assert client.read_response().header("connection") in (None, "keep-alive")
        client.send_request(CHAT, dumps(chat()))
        assert client.read_response().status == 200


def test_client_of_http_1_0_gets_a_length_and_the_end(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(http_1_0(dumps(chat())))
        response = client.read_response()
        assert response.status == 200
        assert response.framing in ("length", "close")
        assert response.json()["choices"][0]["message"]["content"] == TEXT
        assert client.is_closed()


def test_client_of_http_1_0_gets_a_stream_without_chunks(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(http_1_0(dumps(chat(stream=True))))
        response = client.read_response()
    assert response.framing == "close"
    assert response.header("transfer-encoding") is None
    view = StreamView.of(response)
    assert (view.text, view.done_count) == (TEXT, 1)


def test_client_of_http_1_0_gets_a_chunked_body_without_chunks(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    chunked = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")])
    full.next(raw(chunked + chunk(GOOD) + LAST_CHUNK, then=None))
    with gateway.connect() as client:
        client.send(http_1_0(dumps(chat())))
        response = client.read_response()
    assert response.header("transfer-encoding") is None
    assert response.body == GOOD


def test_client_of_http_1_0_gets_errors_as_well(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(http_1_0(b"{"))
        response = client.read_response()
        assert (response.status, response.error["code"]) == (400, "invalid_json")
        assert client.is_closed()


def test_client_of_http_1_0_that_asks_to_keep_alive_is_framed_without_chunks(
    gateway: GatewayProcess,
) -> None:
    with gateway.connect() as client:
        client.send(http_1_0(dumps(chat(stream=True)), "connection: keep-alive\r\n"))
        response = client.read_response()
        assert response.header("transfer-encoding") is None
        assert StreamView.of(response).done_count == 1


def test_broken_stream_is_not_followed_by_another_answer(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    broken = STREAM_HEAD + chunk(b'data: {"choices":[]}\n\n')
    full.always(raw(broken, then="fin"))
    body = dumps(chat(stream=True, n=2))
    with gateway.connect() as client:
        client.send(request_bytes(CHAT, body) + request_bytes("/health", method="GET"))
        assert client.read_to_eof().count(b"HTTP/1.1 ") == 1


def test_connections_of_gone_clients_are_not_kept(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.close_connections()
    for _ in range(30):
        with gateway.connect() as client:
            client.send_request(CHAT, dumps(chat()))
            client.read_response()
    eventually(lambda: full.open_connections <= 30)
    assert gateway.post(CHAT, chat()).status == 200
