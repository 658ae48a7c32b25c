"""Relay of requests: the engine gets the client's request without the headers not meant for it."""

import json
from typing import Any

import pytest

from tests.integration.gateway.conftest import EPOCH, model
from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, HOT_ROUTES, chat, dumps, request_for
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.tcp import bytes_waiting_at_peer


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    prefixed = model(full, int8)
    prefixed["variants"]["full"] = {"url": f"{full.url}/demo-full"}
    keyed = model(full, int8)
    keyed["variants"]["full"] = {"url": full.url, "api_key_env": "ENGINE_KEY"}
    return {
        "demo": model(full, int8),
        "demo-candidate": model(full, int8, flag={"split": {"int8": 100}}),
        "demo-killed": model(full, int8, flag={"split": {"int8": 100}, "killed": True}),
        "prefixed": prefixed,
        "keyed": keyed,
    }


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {"ENGINE_KEY": "engine-secret"}


BODIES = {
    "pretty": b'{\n  "model" : "demo",\r\n\t"messages": [ {"role":"user","content":"hi ."} ]\n}\n',
    "escapes": rb'{"model":"demo","messages":[{"role":"user","content":"\u00e9\/\ud83c\udf0a\n"}]}',
    "unicode": '{"model":"demo","messages":[{"role":"user","content":"é🌊\u2028"}]}'.encode(),
    "numbers": b'{"model":"demo","messages":[],"seed":12345678901234567890123,"top_p":1.0e-1}',
    "unknown": b'{"model":"demo","messages":[],"x_vendor":{"a":[1,{"b":null}]},"":0}',
    "repeated": b'{"model":"demo","messages":[],"seed":1,"seed":2}',
    "model_last": b'{"messages":[{"role":"user","content":"\\"model\\":\\"x\\""}],"model":"demo"}',
    "nested": b'{"model":"demo","messages":[],"metadata":{"model":"x","stream":true,"n":9}}',
    "escaped_name": b'{"\\u006dodel":"demo","messages":[]}',
    "stream_text": b'{"model":"demo","messages":[],"stream":"true"}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_request_body_reaches_the_engine_byte_for_byte(
    gateway: GatewayProcess, full: ScriptedUpstream, body: bytes
) -> None:
    assert gateway.post(CHAT, body).status == 200
    assert full.wait_for_request().body == body


@pytest.mark.parametrize("size", [1, 7, 100, 65_536, 1_000_003])
def test_chunked_request_body_reaches_the_engine_whole(
    gateway: GatewayProcess, full: ScriptedUpstream, size: int
) -> None:
    body = dumps(chat(user="u" * min(size * 3, 1_500_000)))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    head = request_bytes(CHAT, b"", {"transfer-encoding": "chunked"}, method="GET")
    head = head.replace(b"GET", b"POST", 1)
    with gateway.connect() as client:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        client.send(head + chunks + b"0\r\n\r\n")
        assert client.read_response().status == 200
    request = full.wait_for_request()
    assert request.body == body
    assert (request.header("content-length") is None) != (
        request.header("transfer-encoding") is None
    )


@pytest.mark.parametrize("path", HOT_ROUTES)
def test_hot_route_is_relayed(gateway: GatewayProcess, full: ScriptedUpstream, path: str) -> None:
    response = gateway.post(path, request_for(path))
    assert response.status == 200
    request = full.wait_for_request()
    assert (request.method, request.target) == ("POST", path)


def test_query_string_reaches_the_engine(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    gateway.post(f"{CHAT}?api-version=1&x=%20", chat())
    assert full.wait_for_request().target == f"{CHAT}?api-version=1&x=%20"


@pytest.mark.parametrize("path", HOT_ROUTES)
def test_path_prefix_of_a_variant_is_put_in_front(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str
) -> None:
    assert gateway.post(path, request_for(path, "prefixed")).status == 200
    assert full.wait_for_request().target == f"/demo-full{path}"


FORWARDED = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "a=b",
    "user-agent": "curl/8",
    "accept": "text/event-stream, */*;q=0.1",
    "accept-language": "el",
    "content-type": "application/json; charset=utf-8",
    "x-anything": "at all",
}


@pytest.mark.parametrize("name", FORWARDED)
def test_request_header_is_forwarded(
    gateway: GatewayProcess, full: ScriptedUpstream, name: str
) -> None:
    gateway.post(CHAT, chat(), {name: FORWARDED[name]})
    assert full.wait_for_request().header(name) == FORWARDED[name]


WITHHELD = {
    "authorization": "Bearer client-secret",
    "cookie": "session=1",
    "x-penumbra-variant": "full",
    "x-penumbra-slice": "greek",
    "x-penumbra-anything": "1",
    "keep-alive": "timeout=5",
    "te": "trailers",
    "trailer": "x-checksum",
    "proxy-authorization": "Basic eDp5",
    "proxy-connection": "keep-alive",
    "upgrade": "h2c",
    "http2-settings": "AAEAAEAA",
    "accept-encoding": "gzip, deflate, br",
    "x-api-key": "client-secret",
}


@pytest.mark.parametrize("name", WITHHELD)
def test_request_header_is_withheld(
    gateway: GatewayProcess, full: ScriptedUpstream, name: str
) -> None:
    assert gateway.post(CHAT, chat(), {name: WITHHELD[name]}).status == 200
    assert full.wait_for_request().header(name) is None


def test_request_header_that_connection_names_is_withheld(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gateway.post(CHAT, chat(), {"connection": "keep-alive, X-Private", "x-private": "1"})
    assert full.wait_for_request().header("x-private") is None


def with_lines(*lines: str) -> bytes:
    """A request with these header lines before its others."""
    start, rest = request_bytes(CHAT, dumps(chat())).split(b"\r\n", 1)
    return b"\r\n".join([start, *(line.encode() for line in lines), rest])


def test_repeated_request_headers_reach_the_engine_in_order(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    lines = ["X-Forwarded-For: 1.1.1.1", "Accept: a/b", "x-forwarded-for: 2.2.2.2", "accept: c/d"]
    with gateway.connect() as client:
        client.send(with_lines(*lines, "X-Forwarded-For: 1.1.1.1", "x-single: 1"))
        assert client.read_response().status == 200
    headers = full.wait_for_request().headers
    assert [value for name, value in headers if name == "x-forwarded-for"] == [
        "1.1.1.1",
        "2.2.2.2",
        "1.1.1.1",
    ]
    assert [value for name, value in headers if name == "accept"] == ["a/b", "c/d"]
    assert [value for name, value in headers if name == "x-single"] == ["1"]


def test_headers_that_any_of_several_connection_lines_names_are_withheld(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    lines = ["connection: x-a", "x-a: 1", "connection: keep-alive, X-B", "x-b: 2", "x-c: 3"]
    with gateway.connect() as client:
        client.send(with_lines(*lines))
        assert client.read_response().status == 200
    names = [name for name, _ in full.wait_for_request().headers]
    assert [name for name in names if name in ("x-a", "x-b", "x-c", "connection")] == ["x-c"]


def test_trailer_of_a_request_does_not_travel_as_headers(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    body = dumps(chat())
    head = request_bytes(CHAT, b"", {"transfer-encoding": "chunked"}, method="GET")
    trailer = b"x-sum: 1\r\nx-penumbra-variant: int8\r\ncontent-encoding: gzip\r\n"
    with gateway.connect() as client:
        client.send(head.replace(b"GET", b"POST", 1))
        client.send(b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailer))
        assert client.read_response().status == 200
    request = full.wait_for_request()
    assert request.body == body
    assert request.header("x-sum") is None
    assert request.header("content-encoding") is None


def test_request_header_spelt_in_capitals_is_withheld_too(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gateway.post(
        CHAT, chat(), {"AUTHORIZATION": "Bearer x", "X-Penumbra-Slice": "a", "Cookie": "b"}
    )
    request = full.wait_for_request()
    for name in ("authorization", "x-penumbra-slice", "cookie"):
        assert request.header(name) is None


def test_host_header_is_the_engines(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    gateway.post(CHAT, chat(), {"host": "public.example"})
    assert full.wait_for_request().header("host") == f"127.0.0.1:{full.port}"


def test_engine_key_comes_from_the_environment(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gateway.post(CHAT, chat("keyed"), {"authorization": "Bearer client-secret"})
    assert full.wait_for_request().header("authorization") == "Bearer engine-secret"


@pytest.mark.parametrize("identity", ["a", "req_1-2.3~!*'()", "x" * 128, "\x7e{|}"])
def test_request_id_of_the_client_is_kept(
    gateway: GatewayProcess, full: ScriptedUpstream, identity: str
) -> None:
    response = gateway.post(CHAT, chat(), {"x-request-id": identity})
    assert response.header("x-request-id") == identity
    assert full.wait_for_request().header("x-request-id") == identity


@pytest.mark.parametrize("identity", ["", "x" * 129, "two words", "\xe9t\xe9", "tab\tbed"])
def test_request_id_that_will_not_do_is_replaced(
    gateway: GatewayProcess, full: ScriptedUpstream, identity: str
) -> None:
    response = gateway.post(CHAT, chat(), {"x-request-id": identity})
    given = response.header("x-request-id")
    assert given
    assert given != identity
    assert full.wait_for_request().header("x-request-id") == given


def test_request_ids_differ(gateway: GatewayProcess) -> None:
    given = {gateway.post(CHAT, chat()).header("x-request-id") for _ in range(5)}
    assert len(given) == 5


@pytest.mark.parametrize(
    ("name", "headers", "variant", "reason"),
    [
        ("demo", {}, "full", "DEFAULT"),
        ("demo", {"x-penumbra-variant": "int8"}, "int8", "PIN"),
        ("demo-candidate", {}, "int8", "SPLIT"),
        ("demo-candidate", {"x-penumbra-variant": "full"}, "full", "PIN"),
        ("demo-killed", {}, "full", "KILL_SWITCH"),
        ("demo-killed", {"x-penumbra-variant": "int8"}, "full", "KILL_SWITCH"),
    ],
)
def test_answer_says_who_and_why(
    gateway: GatewayProcess, name: str, headers: dict[str, str], variant: str, reason: str
) -> None:
    response = gateway.post(CHAT, chat(name), headers)
    assert response.header("x-penumbra-variant") == variant
    assert response.header("x-penumbra-reason") == reason
    assert response.header("x-penumbra-epoch") == str(EPOCH)
    assert response.header("x-penumbra-failover") is None
    assert response.json()["id"].startswith(f"chatcmpl-{variant}-")


def test_unknown_pin_is_refused(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    response = gateway.post(CHAT, chat(), {"x-penumbra-variant": "int3"})
    assert (response.status, response.error["code"]) == (400, "unknown_variant")
    assert full.requests == []


def test_request_split_at_every_byte_is_the_same_request(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    body = json.dumps(chat(), separators=(",", ":")).encode()
    data = request_bytes(CHAT, body)
    with gateway.connect() as client:
        for split in range(1, len(data)):
            client.send(data[:split])
            while bytes_waiting_at_peer(client.socket):
                pass
            client.send(data[split:])
            assert client.read_response().status == 200
    bodies = {request.body for request in full.requests}
    assert (len(full.requests), bodies) == (len(data) - 1, {body})
