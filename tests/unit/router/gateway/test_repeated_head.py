"""A head that repeats the last one is recognised, and makes no difference but the time."""

import random
import re
from typing import Any

import pytest

from penumbra.router.gateway.client_protocol import GatewayProtocol
from penumbra.router.gateway.repeated_head import RepeatedHead, repeated_head
from penumbra.router.upstream.fake import Script, whole
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.wire import CHAT, WHOLE, Wire, chat, request, turns, wire_gateway

MOST_BYTES = 16 * 1024
BODY = b'{"model": "demo"}'
OWN_ID = re.compile(rb"req-[0-9a-f]{16}-[0-9a-f]+")


def head_of(data: bytes) -> RepeatedHead | None:
    lines = [
        (name.lower(), value.strip())
        for name, _, value in (
            line.partition(b":") for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        )
    ]
    return repeated_head(data, CHAT.encode(), dict(lines), lines, MOST_BYTES)


def learned(*headers: str) -> RepeatedHead:
    head = head_of(request(BODY, *headers))
    assert head is not None
    return head


@pytest.mark.parametrize("size", [0, 1, 17, 99_999])
def test_the_same_head_is_recognised_whatever_its_body(size: int) -> None:
    data = request(b"x" * size, "x-user-id: ann")
    assert learned("x-user-id: ann").length_in(data) == b"%d" % size


def test_the_length_may_be_written_in_any_way() -> None:
    data = request(BODY, f"Content-Length:  {len(BODY)}", "content-length-not: 1")
    head = head_of(data)
    assert head is not None
    assert head.length_in(data) == b"17"


@pytest.mark.parametrize(
    "data",
    [
        request(BODY, "x-user-id: bob"),
        request(BODY, "x-user-id: ann", "x-more: 1"),
        request(BODY),
        request(BODY, "x-user-id: ann", key="other"),
        request(BODY, "x-user-id: ann", path="/v1/completions"),
        request(BODY, "x-user-id: ann")[:-1],
        request(BODY, "x-user-id: ann") + b"P",
        request(BODY, "x-user-id: ann") * 2,
        request(BODY, "x-user-id: ann")[1:],
        request(BODY, "x-user-id: ann").replace(b"content-length: 17", b"content-length: +17"),
        request(BODY, "x-user-id: ann").replace(b"content-length: 17", b"content-length: "),
        request(BODY, "x-user-id: ann").replace(b"content-length: 17", b"content-length: 17 "),
        request(BODY, "x-user-id: ann").replace(b"length: 17", "length: \u0661\u0667".encode()),
        request(BODY, "x-user-id: ann").replace(b"length: 17", b"length: 00000000000017"),
        request(BODY, "x-user-id: ann").replace(b"length: 17", b"length: 1_7"),
        b"",
        b"\r\n",
    ],
)
def test_anything_else_is_left_to_the_parser(data: bytes) -> None:
    assert learned("x-user-id: ann").length_in(data) is None


@pytest.mark.parametrize(
    "headers",
    [
        ("connection: close",),
        ("connection: keep-alive",),
        ("expect: 100-continue",),
        ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",),
        ("upgrade: h2c",),
        ("transfer-encoding: chunked",),
        ("content-length: 17", "content-length: 17"),
        ("x-long: " + "a" * MOST_BYTES,),
    ],
)
def test_a_head_that_changes_the_connection_is_not_remembered(headers: tuple[str, ...]) -> None:
    assert head_of(request(BODY, *headers)) is None


def test_a_head_of_which_a_line_was_taken_out_is_not_remembered() -> None:
    data = request(BODY, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    kept = [(b"host", b"x"), (b"authorization", b"Bearer acme"), (b"content-length", b"17")]
    assert repeated_head(data, CHAT.encode(), dict(kept), kept, MOST_BYTES) is None


@pytest.mark.parametrize("data", [request(BODY)[:-1], request(BODY) + b"x", request(BODY) * 2])
def test_a_head_is_remembered_only_from_one_whole_request(data: bytes) -> None:
    assert head_of(data) is None


# On a connection

HEADS = [
    (), (), (), ("x-user-id: ann",), ("x-user-id: bob",), ("x-request-id: mine",),
    ("connection: close",), ("expect: 100-continue",), ("content-encoding: gzip",),
    ("x-penumbra-slice: code",), ("content-length: 3",), ("content-length: 40",),
    ("content-length: 5", "content-length: 5"), ("transfer-encoding: chunked",),
]  # fmt: skip
BODIES: list[Any] = [chat(), chat(user="a"), chat(user="b" * 9_000), b"", b"{", b"0\r\n\r\n"]
OTHERS = [b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n", b"GET", b"\x00"]


def random_requests(draw: random.Random) -> list[bytes]:
    """Reads of one connection: mostly a whole request each, often with the head before."""
    headers, key, path = draw.choice(HEADS[:6]), "acme", CHAT
    reads = []
    for _ in range(draw.randrange(2, 12)):
        if draw.random() < 0.2:
            headers = draw.choice(HEADS)
            key = draw.choice(["acme"] * 8 + ["wrong", ""])
            path = draw.choice([CHAT] * 6 + ["/v1/completions", CHAT + "/", "/nothing"])
        data = request(draw.choice(BODIES), *headers, key=key, path=path)
        match draw.randrange(20):
            case 0:
                at = draw.randrange(len(data))
                reads += [data[:at], data[at:]]
            case 1:
                reads.append(data + data)
            case 2:
                reads.append(draw.choice(OTHERS) + data)
            case 3:
                reads.append(draw.choice(OTHERS))
            case _:
                reads.append(data)
    return reads


async def answered(
    reads: list[bytes], patience: int, *, has_memory: bool
) -> tuple[bytes, list[Any]]:
    """The bytes that the client of these reads gets, and the requests that builds get."""
    sent: list[Any] = []

    def answer(variant: str, asked: UpstreamRequest) -> Script:
        sent.append((variant, asked.path, OWN_ID.sub(b"own", asked.headers), asked.body))
        return whole(WHOLE)

    wire = Wire(wire_gateway(answer))
    if not has_memory:
        wire.forget_heads()
    for data in reads:
        wire.feed(data)
        await turns(patience)
    await turns(50)
    return OWN_ID.sub(b"own", wire.sent), sent


async def test_requests_are_answered_as_if_every_head_were_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = 0
    begin = GatewayProtocol._begin_repeat

    def begin_and_count(self: GatewayProtocol, head: RepeatedHead, data: bytes) -> bool:
        nonlocal begun
        has_begun = begin(self, head, data)
        begun += has_begun
        return has_begun

    monkeypatch.setattr(GatewayProtocol, "_begin_repeat", begin_and_count)
    for seed in range(400):
        draw = random.Random(seed)
        reads, patience = random_requests(draw), draw.choice([0, 1, 30, 30])
        with_memory = await answered(reads, patience, has_memory=True)
        assert with_memory == await answered(reads, patience, has_memory=False), reads
    assert begun > 300


async def test_a_request_behind_one_that_is_not_answered_yet_waits_for_its_turn() -> None:
    served = wire_gateway()
    wire = served.connect()
    one = request(chat())
    wire.feed(one)
    wire.feed(one)
    wire.feed(one)
    await turns()
    assert wire.sent.count(b"HTTP/1.1 200 OK") == 3
    assert served.in_flight("acme") == 0


async def test_the_length_that_a_rule_sees_is_that_of_the_request() -> None:
    served = wire_gateway()
    seen = []
    route = served.gateway.route

    def note_length(asked: Any, *more: Any) -> Any:
        seen.append(asked.headers[b"content-length"])
        return route(asked, *more)

    served.gateway.route = note_length  # type: ignore[method-assign]
    wire = served.connect()
    for user in ("a", "bb"):
        wire.feed(request(chat(user=user)))
        await turns()
    assert [int(length) for length in seen] == [
        len(request(chat(user=user)).partition(b"\r\n\r\n")[2]) for user in ("a", "bb")
    ]
