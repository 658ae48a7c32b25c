"""A tenant's places: taken before the body, and left again whatever becomes of the request."""

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, SliceRule, Snapshot, Variant
from penumbra.router.settings import LimitSettings, TenantLimits
from penumbra.router.upstream.fake import Body, Fail, Hang, Head, Script, events, whole
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.wire import LONG_SECONDS, Wire, WireGateway, turns

CHAT = "/v1/chat/completions"
BODY_BYTES = 200_000
"""Limit on bodies: more than what is decoded at once."""
WHOLE = {"object": "chat.completion", "choices": [{"message": {"content": "hello"}}]}
CHUNK = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}
TABLE = Snapshot(
    epoch=1,
    models={
        "demo": ModelSnapshot(
            baseline="full",
            variants={"full": Variant(url="http://full"), "int8": Variant(url="http://int8")},
            slices=(SliceRule.model_validate({"name": "code", "match": {"code": True}}),),
            flag=Flag(split={"int8": 50}),
        )
    },
)


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": "hi"}], **more}


def request(
    body: bytes | dict[str, Any], *headers: str, key: str | None = "acme", path: str = CHAT
) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: x", *headers]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if not any(line.startswith(("content-length", "transfer-encoding")) for line in lines):
        lines.append(f"content-length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


def gateway(
    answer: Callable[[str, UpstreamRequest], Script] = lambda _url, _request: whole(WHOLE),
    **tenant: int,
) -> WireGateway:
    tenants = {"acme": TenantLimits(**tenant), "other": TenantLimits()}
    return WireGateway(answer, TABLE, tenants, LimitSettings(body_bytes=BODY_BYTES))


def status_of(wire: Wire) -> int:
    return int(wire.sent.split(b" ", 2)[1]) if wire.sent else 0


def code_of(wire: Wire) -> str:
    return str(json.loads(wire.sent.partition(b"\r\n\r\n")[2])["error"]["code"])


async def test_an_unfinished_upload_takes_a_place() -> None:
    served = gateway(concurrency=1)
    upload, late = served.connect(), served.connect()
    upload.feed(request(chat())[:-5])
    late.feed(request(chat(), "content-length: 100000")[:-5])
    await turns()
    assert (status_of(upload), status_of(late)) == (0, 429)
    assert served.in_flight("acme") == 1
    upload.feed(request(chat())[-5:])
    await turns()
    assert status_of(upload) == 200
    assert served.in_flight("acme") == 0


async def test_a_refused_request_that_is_here_as_a_whole_keeps_its_connection() -> None:
    served = gateway(concurrency=1)
    upload, late = served.connect(), served.connect()
    upload.feed(request(chat())[:-5])
    late.feed(request(chat()) + request(chat(), key="other"))
    await turns(40)
    assert late.sent.count(b"HTTP/1.1 429") == late.sent.count(b"HTTP/1.1 200") == 1
    assert not late.transport.is_closing()


@pytest.mark.parametrize("body", [b"", b"{"])
async def test_a_refusal_does_not_wait_for_the_body(body: bytes) -> None:
    served = gateway(requests_per_minute=1)
    first, second = served.connect(), served.connect()
    first.feed(request(chat()))
    second.feed(request(body, "content-length: 50"))
    await turns()
    assert (status_of(first), status_of(second)) == (200, 429)
    assert b"retry-after: 60\r\n" in second.sent
    assert second.transport.is_eof_sent


async def test_requests_that_wait_for_their_turn_hold_no_place_and_little_of_their_bodies() -> None:
    served = gateway(lambda _url, _request: [Hang()], concurrency=1)
    wire = served.connect()
    wire.feed(request(chat()))
    wire.feed(request(chat()))
    await turns()
    assert served.in_flight("acme") == 1
    assert not wire.transport.is_reading_paused
    wire.feed(request(b"x" * 70_000, "content-length: 100000"))
    assert wire.transport.is_reading_paused
    wire.lose()
    await turns()
    assert served.in_flight("acme") == 0


async def test_a_body_that_waited_for_its_turn_has_its_time_from_then_on() -> None:
    served = gateway()
    wire = served.connect()
    wire.feed(request(chat(stream=True)))
    wire.feed(request(chat(), "content-length: 100000"))
    await turns(60)
    assert wire.sent.count(b"HTTP/1.1 ") == 1
    served.pass_time(served.gateway.limits.body_seconds - 1)
    await turns()
    assert wire.sent.count(b"HTTP/1.1 ") == 1
    served.pass_time(2)
    await turns()
    assert b"HTTP/1.1 408" in wire.sent
    assert served.in_flight("acme") == 0


@pytest.mark.parametrize("size", [10, 150_000])
async def test_a_fault_of_the_gateway_is_an_error_and_leaves_the_place(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    served = gateway(concurrency=1)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(served.gateway, "route", fail)
    for _ in range(3):
        wire = served.connect()
        wire.feed(request(chat(x="y" * size)))
        await turns()
        assert (status_of(wire), code_of(wire)) == (500, "internal_error")
        assert b"secret" not in wire.sent
        assert not wire.transport.is_closing()
        assert served.in_flight("acme") == 0


async def test_a_fault_at_the_end_of_an_answer_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = gateway()
    wire = served.connect()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("penumbra.router.gateway.exchange.Exchange._complete", fail)
    wire.feed(request(b"{"))
    await turns()
    assert wire.transport.is_closing()
    assert served.in_flight("acme") == 0


async def test_a_client_that_leaves_during_the_scan_of_its_body_leaves_its_place() -> None:
    served = gateway()
    wire = served.connect()
    body = b'{"model":"demo","x":[' + b"[[[[1]]]]," * 17_000 + b"1]}"
    wire.feed(request(body))
    await turns(1)
    assert served.in_flight("acme") == 1
    wire.lose(ConnectionResetError())
    await turns()
    assert served.in_flight("acme") == 0
    assert status_of(wire) == 0


DEEP = b'{"model":"demo","x":' + b"[" * 960 + b"]" * 960 + b',"y":"\\u0061"}'
BODIES: list[bytes | dict[str, Any]] = [
    chat(),
    chat(stream=True),
    chat(stream=True, n=2),
    chat(user="u" * 100),
    {"model": "unknown"},
    {"messages": []},
    b"",
    b"{",
    b"[]",
    b'{"model":"demo","model":"demo"}',
    b'{"model":"demo","messages":[],"seed":' + b"1" * 5000 + b',"x":"\\u0061"}',
    b'{"model":"demo","messages":[1e999],"x":"\\u0061"}',
    b'{"model":"demo","user":"\\ud800"}',
    b'{"model":"\xff"}',
    DEEP,
    b'{"model":"demo","x":[' + b"{}," * 50_000 + b"1]}",
    b'{"model":"demo","x":[' + b"[[[[[1]]]]]," * 12_000 + b'"\\u0061"]}',
    b'{"model":"demo","x":[' + b"[[[[[1]]]]]," * 12_000 + b"}",
    b"x" * (BODY_BYTES + 1),
]
HEADS = [
    (), (), (), ("connection: close",), ("expect: 100-continue",), ("content-encoding: gzip",),
    ("content-length: 7",), ("content-length: 190000",), ("content-length: 300000",),
    ("content-length: x",), ("transfer-encoding: chunked",), ("x-penumbra-variant: int8",),
    ("x-user-id: \u00e4",), ("x-long: " + "a" * 40_000,), ("no colon",),
]  # fmt: skip
OTHERS = [
    b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\r\n\r\n",
    b"\x00\xff",
    b"PRI * HTTP/2.0\r\n\r\n",
]
SCRIPTS: list[Script] = [
    whole(WHOLE), whole(WHOLE), events(CHUNK, CHUNK), events(CHUNK), whole({"error": "x"}, 500),
    whole({"error": {"message": "x"}}, 400), (Hang(),), (Fail(Outcome.REFUSED),),
    (Head(), Body(b"half"), Fail(Outcome.DIED)), events(CHUNK, is_done=False), (Head(), Hang()),
    [*events(CHUNK, is_done=False), Fail(Outcome.DIED)], (Fail(Outcome.TIMEOUT),),
]  # fmt: skip
PATHS = [CHAT, CHAT, CHAT, "/v1/completions", "/v1/embeddings", "/tokenize", "/v1/nothing"]


def random_bytes(draw: random.Random) -> bytes:
    """The bytes of one client: some requests, most of them odd, perhaps cut."""
    sent = b""
    for _ in range(draw.choice([1, 1, 2, 3, 20])):
        if draw.random() < 0.1:
            sent += draw.choice(OTHERS)
            continue
        key = draw.choice(["acme", "acme", "acme", "other", "wrong", None])
        path, head = draw.choice(PATHS), draw.choice(HEADS)
        sent += request(draw.choice(BODIES), *head, key=key, path=path)
    if draw.random() < 0.3:
        sent = sent[: draw.randrange(len(sent) + 1)]
    return sent


async def converse(served: WireGateway, draw: random.Random) -> bytes:
    """Send it in some pieces, and leave, wait or stay; returns what was answered by then."""
    wire = served.connect()
    sent = random_bytes(draw)
    while sent and not wire.transport.is_reading_paused:
        size = draw.choice([1000, 60_000, len(sent)])
        wire.feed(sent[:size])
        sent = sent[size:]
        await turns(draw.choice([0, 1, 5]))
        if draw.random() < 0.05:
            break
    match draw.randrange(4):
        case 0:
            wire.lose(ConnectionResetError())
        case 1:
            served.pass_time(draw.choice([1.0, 15.0, 70.0]))
        case 2:
            await turns(30)
    return wire.sent


@pytest.mark.parametrize("seed", range(4))
async def test_every_place_is_free_again_after_a_thousand_odd_requests(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    served = gateway(lambda _url, _request: draw.choice(SCRIPTS), concurrency=3)
    route = served.gateway.route

    def route_or_fail(*given: Any) -> Any:
        if draw.random() < 0.05:
            raise ZeroDivisionError
        return route(*given)

    monkeypatch.setattr(served.gateway, "route", route_or_fail)
    seen = b"".join([await converse(served, draw) for _ in range(250)])
    for _ in range(20):
        await turns(50)
        served.pass_time(LONG_SECONDS)
    assert (served.in_flight("acme"), served.in_flight("other")) == (0, 0)
    assert served.gateway.writes.in_flight == 0
    assert served.gateway.timed == set()
    statuses = {int(found) for found in re.findall(rb"HTTP/1.1 (\d+)", seen)}
    assert statuses >= {100, 200, 400, 401, 404, 408, 413, 415, 431, 500}
