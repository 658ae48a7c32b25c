"""Routes of vLLM beyond OpenAI's first ones: Anthropic's API, scores, ranks, vectors, audio."""

from typing import Any

import pytest

from penumbra.router.gateway.hot_routes import HOT_PATHS
from penumbra.router.gateway.refused_routes import REFUSED
from tests.support.behaviours import STREAM_TYPE, chunk, head, raw, respond
from tests.support.gateway_process import GatewayProcess, key_settings
from tests.support.raw_client import RawResponse, request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

ALL_PATHS = sorted(path.decode() for path in HOT_PATHS)
PATHS = [path for path in ALL_PATHS if not path.startswith("/v1/audio/")]
AUDIO = ("/v1/audio/transcriptions", "/v1/audio/translations")
MESSAGES = ("/v1/messages", "/v1/messages/count_tokens")
KEY = "acme-key"
BEARER = {"authorization": f"Bearer {KEY}"}
ANSWER = b'{"id":"a-1","object":"anything", "data":[ {"score": 0.50} ]}'
EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1"}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)


@pytest.fixture(scope="module")
def keys() -> list[dict[str, Any]]:
    return [key_settings("acme", KEY)]


@pytest.mark.parametrize("path", PATHS)
def test_body_and_answer_pass_byte_for_byte(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str
) -> None:
    body = b'{ "model": "demo",\t"query": "\\u00e9", "documents": ["a", "b"] , "n": 1.0e0 }'
    full.always(respond(200, ANSWER))
    response = gateway.post(path, body, BEARER)
    assert (response.status, response.body) == (200, ANSWER)
    assert response.header("x-penumbra-variant") == "full"
    request = full.wait_for_request()
    assert (request.method, request.target, request.body) == ("POST", path, body)


@pytest.mark.parametrize("path", ALL_PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_of_a_relayed_route_are_405(
    gateway: GatewayProcess, path: str, method: str
) -> None:
    with gateway.connect() as client:
        client.send(request_bytes(path, b"", BEARER, method=method))
        response = client.read_response()
    assert response.status == 405
    assert response.header("allow") == "POST"


@pytest.mark.parametrize("path", REFUSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refused_route_says_why(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, method: str
) -> None:
    with gateway.connect() as client:
        client.send(request_bytes(path, dumps(chat()), BEARER, method=method))
        response = client.read_response()
    assert response.status == 404
    if not path.startswith(MESSAGES):
        assert response.error["code"] == "route_not_found"
        assert REFUSED[path] in response.error["message"]
    assert full.requests == []


BINARY = b"\x00\x80\xff{\n" * 100


@pytest.mark.parametrize("encoding", ["bytes", "bytes_only"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
def test_vectors_as_bytes_are_an_answer_of_a_candidate(
    gateway: GatewayProcess, int8: ScriptedUpstream, path: str, encoding: str
) -> None:
    int8.always(respond(200, BINARY, [("content-type", "application/octet-stream")]))
    body = {"model": "demo-candidate", "input": "text", "encoding_format": encoding}
    response = gateway.post(path, body, BEARER)
    assert (response.status, response.body) == (200, BINARY)
    assert response.header("x-penumbra-variant") == "int8"


@pytest.mark.parametrize("path", PATHS)
def test_bytes_that_were_not_asked_for_are_no_answer_of_a_candidate(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, path: str
) -> None:
    full.always(respond(200, ANSWER))
    int8.always(respond(200, BINARY, [("content-type", "application/octet-stream")]))
    body = {"model": "demo-candidate", "input": "text", "encoding_format": "float"}
    assert gateway.post(path, body, BEARER).body == ANSWER


# Audio


def form(model: str | None, size: int) -> bytes:
    parts = [
        b'name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n' + b"\x00\xff" * size
    ]
    if model is not None:
        parts.append(b'name="model"\r\n\r\n' + model.encode())
    written = [b"--edge\r\ncontent-disposition: form-data; %b\r\n" % part for part in parts]
    return b"".join(written) + b"--edge--\r\n"


FORM = {**BEARER, "content-type": "multipart/form-data; boundary=edge"}


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
@pytest.mark.parametrize("path", AUDIO)
def test_form_passes_byte_for_byte(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, size: int
) -> None:
    full.always(respond(200, b"Hello there", [("content-type", "text/plain")]))
    response = gateway.post(path, form("demo", size), FORM)
    assert (response.status, response.body) == (200, b"Hello there")
    request = full.wait_for_request()
    assert (request.target, request.body) == (path, form("demo", size))
    assert request.header("content-type") == FORM["content-type"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (form("unknown", 10), FORM, 404, "model_not_found"),
        (form(None, 10), FORM, 400, "invalid_request"),
        (form("demo", 10)[:-9], FORM, 400, "invalid_request"),
        (form("demo", 10), BEARER, 400, "invalid_request"),
        (dumps(chat()), BEARER, 400, "invalid_request"),
        (form("demo", 10), {"content-type": FORM["content-type"]}, 401, "invalid_api_key"),
    ],
)
def test_form_that_cannot_be_relayed_is_refused(
    gateway: GatewayProcess,
    full: ScriptedUpstream,
    body: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    response = gateway.post(AUDIO[0], body, headers)
    assert (response.status, response.error["code"]) == (status, code)
    assert full.requests == []


# Anthropic's API


def anthropic_error(response: RawResponse) -> dict[str, str]:
    body = response.json()
    assert set(body) == {"type", "error"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    assert response.header("x-request-id")
    return dict(body["error"])


@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, BEARER, {"X-Api-Key": KEY}])
@pytest.mark.parametrize("path", MESSAGES)
def test_messages_take_the_key_in_either_header(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str, headers: dict[str, str]
) -> None:
    full.always(respond(200, ANSWER))
    more = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
    assert gateway.post(path, chat(), {**headers, **more}).status == 200
    request = full.wait_for_request()
    assert request.header("x-api-key") is None
    assert request.header("authorization") is None
    assert request.header("anthropic-version") == "2023-06-01"
    assert request.header("anthropic-beta") == "a,b"


def test_key_in_the_other_header_is_for_messages_only(gateway: GatewayProcess) -> None:
    assert gateway.post(CHAT, chat(), {"x-api-key": KEY}).error["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", [*MESSAGES, "/v1/messages?beta=true", "/v1/messages/"])
@pytest.mark.parametrize(
    ("headers", "body", "status", "kind"),
    [
        ({}, chat(), 401, "authentication_error"),
        ({"x-api-key": "unknown"}, chat(), 401, "authentication_error"),
        (BEARER, chat("unknown"), 404, "not_found_error"),
        (BEARER, {"model": 7}, 400, "invalid_request_error"),
        ({**BEARER, "x-penumbra-variant": "int8"}, chat(), 403, "permission_error"),
        ({**BEARER, "content-encoding": "gzip"}, chat(), 415, "invalid_request_error"),
    ],
)
def test_own_errors_on_messages_are_in_anthropics_form(
    gateway: GatewayProcess,
    full: ScriptedUpstream,
    path: str,
    headers: dict[str, str],
    body: dict[str, Any],
    status: int,
    kind: str,
) -> None:
    response = gateway.post(path, body, headers)
    assert (response.status, anthropic_error(response)["type"]) == (status, kind)
    assert full.requests == []


@pytest.mark.parametrize(("path", "status"), [(MESSAGES[0], 405), ("/v1/messages/nope", 404)])
def test_wrong_route_of_messages_is_in_anthropics_form(
    gateway: GatewayProcess, path: str, status: int
) -> None:
    response = gateway.get(path)
    assert response.status == status
    assert anthropic_error(response)["message"]


def test_two_keys_in_one_request_are_refused(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    data = request_bytes(MESSAGES[0], dumps(chat()), {"x-api-key": KEY})
    with gateway.connect() as client:
        client.send(data.replace(b"x-api-key: ", b"x-api-key: other\r\nx-api-key: "))
        assert client.read_response().status == 400
    assert full.requests == []


def test_stream_of_messages_passes_byte_for_byte(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    start = head(200, [STREAM_TYPE, ("transfer-encoding", "chunked")])
    full.always(raw(start + b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n", then=None))
    response = gateway.post(MESSAGES[0], chat(stream=True), BEARER)
    assert (response.status, response.body) == (200, b"".join(EVENTS))
