"""Requests that the gateway refuses itself: malformed bodies and unknown models."""

import json
from typing import Any

import pytest

from tests.support.gateway_process import GatewayProcess, counting
from tests.support.requests import CHAT, HOT_ROUTES, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

NOT_JSON_OBJECTS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \r\n\t ",
    "open_brace": b"{",
    "truncated": b'{"model":"demo","messages":[{"role":"us',
    "truncated_escape": b'{"model":"demo","x":"\\u12',
    "array": b'[{"model":"demo"}]',
    "string": b'"demo"',
    "number": b"1",
    "null": b"null",
    "text": b"model=demo&messages=hi",
    "xml": b"<model>demo</model>",
    "trailing": b'{"model":"demo"} x',
    "two_objects": b'{"model":"demo"}{"model":"demo"}',
    "single_quotes": b"{'model':'demo'}",
    "trailing_comma": b'{"model":"demo",}',
    "comment": b'{"model":"demo"/*x*/}',
    "bare_name": b'{model:"demo"}',
    "control_character": b'{"model":"demo","x":"a\nb"}',
    "bad_utf8_in_model": b'{"model":"de\xffmo"}',
    "bad_escape": b'{"model":"demo","x":"\\q"}',
    "leading_zero": b'{"model":"demo","x":01}',
    "plus": b'{"model":"demo","x":+1}',
    "infinity": b'{"model":"demo","x":Infinity}',
    "utf16": '{"model":"demo"}'.encode("utf-16"),
    "multipart": b'--x\r\ncontent-disposition: form-data\r\n\r\n{"model":"demo"}\r\n--x--',
    "nul": b"\x00" * 64,
    "deep_and_open": b'{"model":"demo","x":' + b"[" * 100_000,
}


@pytest.mark.parametrize("body", NOT_JSON_OBJECTS.values(), ids=NOT_JSON_OBJECTS.keys())
def test_body_that_is_no_json_object_is_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, body: bytes
) -> None:
    response = gateway.post(CHAT, body)
    assert (response.status, response.error["code"]) == (400, "invalid_json")
    assert response.error["type"] == "invalid_request_error"
    assert full.requests == []


def test_deeply_nested_body_does_no_harm(gateway: GatewayProcess) -> None:
    body = b'{"model":"demo","messages":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert gateway.post(CHAT, body).status in (200, 400)
    assert gateway.post(CHAT, chat()).status == 200


@pytest.mark.parametrize("path", HOT_ROUTES)
def test_every_hot_route_refuses_a_body_that_is_no_json(gateway: GatewayProcess, path: str) -> None:
    assert gateway.post(path, b"nonsense").error["code"] == "invalid_json"


@pytest.mark.parametrize("model", [None, 1, 1.5, True, [], ["demo"], {"name": "demo"}], ids=repr)
def test_model_that_is_no_string_is_refused(gateway: GatewayProcess, model: object) -> None:
    response = gateway.post(CHAT, {"model": model, "messages": []})
    assert (response.status, response.error["param"]) == (400, "model")


def test_model_that_is_missing_is_refused(gateway: GatewayProcess) -> None:
    response = gateway.post(CHAT, {"messages": []})
    assert (response.status, response.error["param"]) == (400, "model")


@pytest.mark.parametrize(
    "model",
    ["unknown", "Demo", "demo ", "demo\0", "../demo", "a\r\nset-cookie: x=1", "🌊", "x" * 9000],
    ids=ascii,
)
def test_unknown_model_is_refused_with_the_known_names(
    gateway: GatewayProcess, full: ScriptedUpstream, model: str
) -> None:
    response = gateway.post(CHAT, {"model": model, "messages": []})
    error = response.error
    assert (response.status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "demo-candidate" in error["message"]
    assert response.header("set-cookie") is None
    assert full.requests == []


def test_model_of_lone_surrogates_is_refused(gateway: GatewayProcess) -> None:
    assert gateway.post(CHAT, b'{"model":"\\ud800","messages":[]}').status in (400, 404)


ROUTING_FIELDS: dict[str, list[Any]] = {
    "model": ["demo", "demo-candidate"],
    "stream": [True, False],
    "n": [1, 2],
    "user": ["a", "b"],
}


@pytest.mark.parametrize("name", ROUTING_FIELDS)
@pytest.mark.parametrize("is_same", [False, True])
def test_routing_field_that_appears_twice_is_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, name: str, is_same: bool
) -> None:
    first, second = ROUTING_FIELDS[name]
    pairs = [
        f'"{name}":{json.dumps(first)}',
        f'"{name}":{json.dumps(first if is_same else second)}',
    ]
    others = [] if name == "model" else ['"model":"demo"']
    body = "{" + ",".join([pairs[0], *others, '"messages":[]', pairs[1]]) + "}"
    response = gateway.post(CHAT, body.encode())
    assert (response.status, response.error["code"]) == (400, "duplicate_field")
    assert response.error["param"] == name
    assert full.requests == []


@pytest.mark.parametrize(
    "body",
    [
        rb'{"model":"demo","messages":[],"mod\u0065l":"demo-candidate"}',
        rb'{"\u006dodel":"demo","messages":[],"model":"demo-candidate"}',
        rb'{"model":"demo","messages":[],"strea\u006d":true,"stream":false}',
        rb'{"model" :"demo","messages":[], "model"	:"demo-candidate"}',
    ],
    ids=["second_escaped", "first_escaped", "stream_escaped", "blanks"],
)
def test_routing_field_that_appears_twice_in_disguise_is_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, body: bytes
) -> None:
    response = gateway.post(CHAT, body)
    assert (response.status, response.error["code"]) == (400, "duplicate_field")
    assert full.requests == int8.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"demo","messages":[{"role":"user","content":"\\"model\\": \\"model\\""}]}',
        b'{"model":"demo","messages":[],"metadata":{"model":"x","user":"y"},"user":"z"}',
        b'{"model":"demo","messages":[],"Model":"x","MODEL":"y"}',
        b'{"model":"demo","messages":[],"tools":[{"model":1},{"model":2}]}',
        b'{"model":"demo","messages":[],"seed":1,"seed":2}',
    ],
    ids=["in_text", "nested", "other_case", "in_tools", "other_field"],
)
def test_name_that_only_looks_like_a_routing_field_is_no_duplicate(
    gateway: GatewayProcess, body: bytes
) -> None:
    assert gateway.post(CHAT, body).status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "GZIP"])
def test_compressed_body_is_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, coding: str
) -> None:
    response = gateway.post(CHAT, dumps(chat()), {"content-encoding": coding})
    assert (response.status, response.error["code"]) == (415, "unsupported_encoding")
    assert full.requests == []


@pytest.mark.parametrize("coding", ["identity", "Identity"])
def test_identity_coding_is_no_compression(gateway: GatewayProcess, coding: str) -> None:
    assert gateway.post(CHAT, chat(), {"content-encoding": coding}).status == 200


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""]
)
def test_content_type_is_not_checked(gateway: GatewayProcess, media_type: str) -> None:
    assert gateway.post(CHAT, chat(), {"content-type": media_type}).status == 200


def test_refusal_keeps_the_request_id(gateway: GatewayProcess) -> None:
    response = gateway.post(CHAT, b"{", {"x-request-id": "mine-1"})
    assert response.header("x-request-id") == "mine-1"


def test_refusal_names_no_variant(gateway: GatewayProcess) -> None:
    response = gateway.post(CHAT, b"{")
    assert response.header("x-penumbra-variant") is None


def test_refusal_is_counted_by_code(gateway: GatewayProcess) -> None:
    with counting(gateway, "penumbra_gateway_errors_total", code="invalid_json"):
        gateway.post(CHAT, b"{")


def test_connection_survives_a_refused_body(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        for body, status in [(b"{", 400), (dumps(chat()), 200), (b"[]", 400), (dumps(chat()), 200)]:
            client.send_request(CHAT, body)
            assert client.read_response().status == status
