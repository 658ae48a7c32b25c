"""Requests of ordinary HTTP clients: offers of upgrades, absolute targets, a slash too many."""

import json

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, HOT_ROUTES, chat, dumps, request_for
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.tcp import bytes_waiting_at_peer

BODY = dumps(chat())
JDK = {
    "connection": "Upgrade, HTTP2-Settings",
    "upgrade": "h2c",
    "http2-settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "user-agent": "Java-http-client/21",
}
"""Headers of JDK's `HttpClient` with its defaults, on the first request of a connection."""

OFFERS: dict[str, dict[str, str]] = {
    "jdk": JDK,
    "tls": {"connection": "upgrade", "upgrade": "TLS/1.0"},
    "several": {"connection": "Upgrade, keep-alive", "upgrade": "h2c, IRC/6.9 , RTA/x11"},
    "unknown": {"connection": "UPGRADE", "upgrade": "nonsense"},
    "no_connection_line": {"upgrade": "h2c"},
    "with_expectation": {**JDK, "expect": "100-continue"},
}


@pytest.mark.parametrize("headers", OFFERS.values(), ids=OFFERS.keys())
@pytest.mark.parametrize("path", HOT_ROUTES)
def test_offered_upgrade_is_ignored_and_the_request_served(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, headers: dict[str, str]
) -> None:
    body = dumps(request_for(path))
    with gateway.connect() as client:
        client.send(request_bytes(path, body, headers))
        response = client.read_response()
        assert (response.status, response.header("upgrade")) == (200, None)
        client.send(request_bytes(path, body))
        assert client.read_response().status == 200
    assert [request.body for request in full.requests] == [body, body]


def test_offered_upgrade_does_not_travel_to_the_engine(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    assert gateway.post(CHAT, chat(), JDK).status == 200
    request = full.wait_for_request()
    for name in ("upgrade", "http2-settings", "connection"):
        assert request.header(name) is None
    assert request.header("user-agent") == JDK["user-agent"]


def test_setting_of_an_upgrade_stays_behind_without_its_offer(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    assert gateway.post(CHAT, chat(), {"http2-settings": "AAEAAEAA"}).status == 200
    assert full.wait_for_request().header("http2-settings") is None


def test_chunked_request_with_an_offer_is_served(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    headers = {**JDK, "transfer-encoding": "chunked"}
    head = request_bytes(CHAT, b"", headers, method="GET").replace(b"GET", b"POST", 1)
    with gateway.connect() as client:
        client.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert client.read_response().status == 200
    assert full.wait_for_request().body == BODY


def test_request_with_an_offer_may_be_split_at_every_byte(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    data = request_bytes(CHAT, BODY, JDK)
    with gateway.connect() as client:
        for split in range(1, len(data)):
            client.send(data[:split])
            while bytes_waiting_at_peer(client.socket):
                pass
            client.send(data[split:])
            assert client.read_response().status == 200
    assert {request.body for request in full.requests} == {BODY}
    assert len(full.requests) == len(data) - 1


def test_requests_behind_an_offer_are_answered_in_order(gateway: GatewayProcess) -> None:
    offered = request_bytes(CHAT, BODY, JDK)
    listed = request_bytes("/v1/models", method="GET", headers=JDK)
    last = request_bytes("/health", method="GET", headers={"connection": "close"})
    with gateway.connect() as client:
        client.send(offered + listed + offered + last)
        responses = client.read_responses_to_eof()
    assert [response.status for response in responses] == [200, 200, 200, 200]
    assert responses[1].json()["object"] == "list"
    assert responses[3].json() == {"status": "ok"}


def test_offers_without_end_close_the_connection(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    with gateway.connect() as client:
        client.send(request_bytes("/health", method="GET", headers=JDK) * 2000)
        responses = client.read_responses_to_eof()
    statuses = [response.status for response in responses]
    assert statuses[-1] == 400
    assert set(statuses[:-1]) == {200}
    assert full.requests == []


def test_head_with_an_offer_is_checked_as_any_other(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    data = request_bytes(CHAT, BODY, JDK).replace(b"host: gateway.test", b"host: a\r\nhost: b")
    with gateway.connect() as client:
        client.send(data)
        (response,) = client.read_responses_to_eof()
    assert (response.status, response.error["code"]) == (400, "invalid_request")
    assert full.requests == []


@pytest.mark.parametrize("offer", ["websocket", "WebSocket", "h2c, websocket", "websocket/13"])
def test_websocket_is_refused_in_words(
    gateway: GatewayProcess, full: ScriptedUpstream, offer: str
) -> None:
    headers = {"connection": "Upgrade", "upgrade": offer, "sec-websocket-version": "13"}
    with gateway.connect() as client:
        client.send(request_bytes("/v1/realtime", method="GET", headers=headers))
        (response,) = client.read_responses_to_eof()
    assert response.status == 400
    assert "WebSocket" in response.error["message"]
    assert full.requests == []


@pytest.mark.parametrize("rest", [b"", b"SM\r\n\r\n", b"SM\r\n\r\n" + bytes(9) + b"\x04" * 40])
def test_prior_knowledge_of_http_2_is_refused_in_words(
    gateway: GatewayProcess, full: ScriptedUpstream, rest: bytes
) -> None:
    with gateway.connect() as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\n" + rest)
        if not rest:
            client.send(b"SM\r\n\r\n")
        (response,) = client.read_responses_to_eof()
    assert response.status == 400
    assert "HTTP/2" in response.error["message"]
    assert full.requests == []


ABSOLUTE: dict[str, tuple[str, str]] = {
    "plain": ("http://gateway.test", "gateway.test"),
    "capitals": ("HTTP://Gateway.TEST", "gateway.test"),
    "port": ("http://gateway.test:8080", "gateway.test:8080"),
    "default_port_in_the_target": ("http://gateway.test:80", "gateway.test"),
    "default_port_in_the_host": ("http://gateway.test", "gateway.test:80"),
    "tls_in_front": ("https://gateway.test", "gateway.test:443"),
    "ipv6": ("http://[::1]:8080", "[::1]:8080"),
    "ipv6_without_port": ("http://[::1]", "[::1]"),
}


@pytest.mark.parametrize(("start", "host"), ABSOLUTE.values(), ids=ABSOLUTE.keys())
def test_absolute_target_of_this_server_is_served(
    gateway: GatewayProcess, full: ScriptedUpstream, start: str, host: str
) -> None:
    with gateway.connect() as client:
        for path in (CHAT, f"{CHAT}?api-version=1"):
            client.send(request_bytes(start + path, BODY, {"host": host}))
            assert client.read_response().status == 200
        for target, status in {"/health": 200, "/v1/models": 200, "/nope": 404, "": 404}.items():
            client.send(request_bytes(start + target, method="GET", headers={"host": host}))
            assert client.read_response().status == status
    assert [request.target for request in full.requests if request.method == "POST"] == [
        CHAT,
        f"{CHAT}?api-version=1",
    ]


FOREIGN: dict[str, tuple[str, str]] = {
    "other_host": ("http://evil.test", "gateway.test"),
    "other_port": ("http://gateway.test:81", "gateway.test"),
    "other_scheme_port": ("https://gateway.test", "gateway.test:80"),
    "credentials": ("http://user:word@gateway.test", "gateway.test"),
    "host_as_credentials": ("http://gateway.test@evil.test", "gateway.test"),
    "longer_host": ("http://gateway.test.evil", "gateway.test"),
    "other_protocol": ("ftp://gateway.test", "gateway.test"),
}


@pytest.mark.parametrize(("start", "host"), FOREIGN.values(), ids=FOREIGN.keys())
def test_absolute_target_that_contradicts_its_host_is_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, start: str, host: str
) -> None:
    with gateway.connect() as client:
        client.send(request_bytes(start + CHAT, BODY, {"host": host}))
        (response,) = client.read_responses_to_eof()
    assert (response.status, response.error["code"]) == (400, "invalid_request")
    assert full.requests == []


@pytest.mark.parametrize("query", ["", "?api-version=1", "?x=/"])
@pytest.mark.parametrize("path", HOT_ROUTES)
def test_slash_behind_a_hot_route_is_left_out(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, query: str
) -> None:
    response = gateway.post(f"{path}/{query}", request_for(path))
    assert response.status == 200
    assert full.wait_for_request().target == path + query


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/v1/models/demo", "/metrics"])
def test_slash_behind_another_route_is_left_out(gateway: GatewayProcess, path: str) -> None:
    assert gateway.get(f"{path}/").status == 200
    assert gateway.get(f"{path}/?x=1").status == 200


@pytest.mark.parametrize("path", [*HOT_ROUTES, "/v1/models", "/health", "/nope"])
def test_answer_to_head_has_no_body(gateway: GatewayProcess, path: str) -> None:
    with gateway.connect() as client:
        for _ in range(2):
            client.send(request_bytes(path, method="HEAD"))
            response = client.read_response(has_body=False)
            assert response.status == {"/v1/models": 200, "/health": 200, "/nope": 404}.get(
                path, 405
            )
        client.send(request_bytes("/health", method="GET"))
        assert json.loads(client.read_response().body) == {"status": "ok"}
