"""A thousand odd requests, cut, broken, pipelined, too large or without an end, leave nothing."""

import random
import re
from typing import Any, NoReturn

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.fake import Body, Fail, Hang, Head, Script, events, whole
from tests.support.wire import (
    BODY_BYTES,
    CHAT,
    CHUNK,
    LONG_SECONDS,
    WHOLE,
    Wire,
    WireGateway,
    chat,
    request,
    turns,
    wire_gateway,
)

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


async def converse(served: WireGateway, draw: random.Random) -> Wire:
    """Send it in some pieces, and leave, wait or stay."""
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
        case _:
            pass
    return wire


def fail(*given: Any) -> NoReturn:
    """Fail to route."""
    raise ZeroDivisionError(given)


@pytest.mark.parametrize("seed", range(4))
async def test_every_place_is_free_again_after_a_thousand_odd_requests(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    served = wire_gateway(lambda _url, _request: draw.choice(SCRIPTS), concurrency=3)
    route = served.gateway.route

    def route_or_fail(*given: Any) -> Any:
        if draw.random() < 0.05:
            raise ZeroDivisionError
        return route(*given)

    monkeypatch.setattr(served.gateway, "route", route_or_fail)
    wires = [await converse(served, draw) for _ in range(250)]
    wires.append(served.connect())
    wires[-1].feed(request(chat(), key="acme")[:-1])  # and one that is surely too slow
    monkeypatch.setattr(served.gateway, "route", fail)
    wires.append(served.connect())
    wires[-1].feed(request(chat(), key="other"))  # and one that surely fails
    await turns(50)
    monkeypatch.setattr(served.gateway, "route", route_or_fail)
    for _ in range(20):
        await turns(50)
        served.pass_time(LONG_SECONDS)
    assert (served.in_flight("acme"), served.in_flight("other")) == (0, 0)
    assert served.gateway.writes.in_flight == 0
    assert served.gateway.timed == set()
    # How far a large body is read in a turn depends on the machine: all answers count in the end.
    seen = b"".join(wire.sent for wire in wires)
    statuses = {int(found) for found in re.findall(rb"HTTP/1.1 (\d+)", seen)}
    assert statuses >= {100, 200, 400, 401, 404, 408, 413, 415, 431, 500}
