"""Large, odd and unfinished bodies: they are read in steps, take places and hold up no others."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.gateway.conftest import model
from tests.support.behaviours import respond
from tests.support.gateway_process import GatewayProcess, counting, eventually, key_settings
from tests.support.raw_client import RawClient, request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

MEGABYTE = 1024 * 1024
LARGE = 15 * MEGABYTE
BEARER = {"authorization": "Bearer single-key"}


@pytest.fixture(scope="module")
def keys() -> list[dict[str, Any]]:
    limits = {"concurrency": 1}
    return [key_settings("single", "single-key", limits=limits), key_settings("free", "free-key")]


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    slices = [
        {"name": "long", "match": {"prompt_chars_min": 8000}},
        {"name": "code", "match": {"code": True}},
    ]
    return {"demo": model(full, int8, slices=slices)}


@pytest.fixture(autouse=True)
def _any_body_is_answered(full: ScriptedUpstream) -> None:
    # The scripted engine reads bodies with Python's own limits.
    answer = {"object": "chat.completion", "choices": [{"message": {"content": "hello"}}]}
    full.always(respond(200, dumps(answer)))


def free(gateway: GatewayProcess, body: bytes) -> int:
    return gateway.post(CHAT, body, {"authorization": "Bearer free-key"}).status


def filled(item: bytes, size: int = LARGE, field: bytes = b"x") -> bytes:
    """A body with one array of the size."""
    items = item * (size // len(item))
    return b'{"model":"demo","messages":[],"%b":[%b1]}' % (field, items)


@pytest.mark.parametrize(
    "item", [b"{},", b'"n",', b"[[]],", b"1,", b'{"role":"user"},', '"ä",'.encode()], ids=ascii
)
def test_large_body_passes_byte_for_byte(
    gateway: GatewayProcess, full: ScriptedUpstream, item: bytes
) -> None:
    body = filled(item)
    assert free(gateway, body) == 200
    assert full.wait_for_request().body == body


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (b',"model":"other"}', "duplicate_field"),
        (b',"m\\u006fdel":"other"}', "duplicate_field"),
        (b',"seed":01}', "invalid_json"),
        (b',"x":"\xff"}', "invalid_json"),
        (b"", "invalid_json"),
        (b"} x", "invalid_json"),
    ],
)
def test_large_body_is_checked_to_its_end(
    gateway: GatewayProcess, full: ScriptedUpstream, end: bytes, code: str
) -> None:
    body = filled(b"{},", MEGABYTE)[:-1] + end
    response = gateway.post(CHAT, body, {"authorization": "Bearer free-key"})
    assert (response.status, response.error["code"]) == (400, code)
    assert full.requests == []


def test_prompt_that_is_too_large_for_rules_is_still_a_long_one(gateway: GatewayProcess) -> None:
    body = filled(b'{"role":"user","content":"a"},', field=b"prompt")
    for sent in (body, body.replace(b'"messages":[],"prompt"', b'"messages"')):
        with counting(gateway, "penumbra_upstream_attempts_total", slice="long"):
            assert free(gateway, sent) == 200


def test_other_requests_are_answered_while_a_large_body_is_read(gateway: GatewayProcess) -> None:
    slow = filled(b'[{"a":[{"b":[{"c":[1]}]}]}],')
    with gateway.connect() as client:
        client.send_request(CHAT, slow, {"authorization": "Bearer free-key"})
        for _ in range(20):
            assert free(gateway, dumps(chat())) == 200
        assert client.read_response().status == 200


ODD = {
    "digits": b'{"model":"demo","messages":[],"seed":' + b"1" * 5000 + b',"x":"\\u0061"}',
    "minus_digits": b'{"model":"demo","messages":[],"seed":-' + b"9" * 9999 + b',"x":"\\u0061"}',
    "depth_960": b'{"model":"demo","x":' + b"[" * 960 + b"]" * 960 + b',"y":"\\u0061"}',
    "depth_990": b'{"model":"demo","x":' + b"[" * 990 + b"]" * 990 + b',"y":"\\u0061"}',
    "depth_of_user": b'{"model":"demo","user":' + b"[" * 990 + b"]" * 990 + b"}",
    "digits_of_user": b'{"model":"demo","user":' + b"1" * 5000 + b"}",
    "names_in_a_schema": b'{"model":"demo","x":[{"user":1},{"user":2}],"y":' + b"9" * 4400 + b"}",
    "tab": b'{"model":"demo","x":"a\tb","y":"\\u0061"}',
    "infinite": b'{"model":"demo","messages":[{"content":1e999}],"y":"\\u0061"}',
    "half_pair": b'{"model":"demo","messages":[],"user":"\\ud800"}',
    "metadata": b'{"model":"demo","messages":[],"metadata":' + b"[" * 800 + b"]" * 800 + b"}",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD.keys())
def test_odd_body_is_answered_and_leaves_its_place(gateway: GatewayProcess, body: bytes) -> None:
    assert gateway.post(CHAT, body, BEARER).status in (200, 400)
    assert gateway.post(CHAT, dumps(chat()), BEARER).status == 200
    assert "request_fault" not in gateway.log_text()


@contextlib.contextmanager
def unfinished(gateway: GatewayProcess, body: bytes) -> Iterator[RawClient]:
    """An upload whose last byte is missing."""
    with gateway.connect() as client:
        client.send(request_bytes(CHAT, body, BEARER)[:-1])
        yield client


def test_unfinished_upload_takes_a_place_until_its_client_leaves(gateway: GatewayProcess) -> None:
    body = dumps(chat())
    with unfinished(gateway, body):
        eventually(lambda: gateway.post(CHAT, body, BEARER).status == 429)
    eventually(lambda: gateway.post(CHAT, body, BEARER).status == 200)


def test_unfinished_uploads_of_one_tenant_hold_little_memory(gateway: GatewayProcess) -> None:
    body = json.dumps(chat(user="u" * LARGE)).encode()
    with contextlib.ExitStack() as stack, gateway.growing_at_most(60 * MEGABYTE):
        clients = [stack.enter_context(unfinished(gateway, body)) for _ in range(20)]
        assert [client.read_response().status for client in clients[1:]] == [429] * 19
    eventually(lambda: gateway.post(CHAT, dumps(chat()), BEARER).status == 200)


def test_body_in_chunks_of_one_byte_is_read(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    body = json.dumps(chat(user="u" * 60_000)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n".encode()
    with gateway.connect() as client:
        client.send(head + b"authorization: Bearer single-key\r\n\r\n")
        client.send(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert client.read_response().status == 200
    assert full.wait_for_request().body == body


def test_model_may_be_left_out_where_one_is_served(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    body = dumps({"messages": [{"role": "user", "content": "hi"}]})
    assert gateway.post(CHAT, body, BEARER).status == 200
    assert full.wait_for_request().body == body
