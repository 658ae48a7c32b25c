"""No callback of the event loop takes long, whatever bytes a client sends.

CPU time of the thread is measured, which a busy machine changes less than time of day.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penumbra.router.flags.routing_table import ModelSnapshot, SliceRule, Snapshot, Variant
from penumbra.router.settings import LimitSettings, TenantLimits
from penumbra.router.upstream.fake import whole
from tests.support.wire import Wire, WireGateway

LIMIT_SECONDS = 0.02
TRIES = 3
"""The cost of a body shows in each of them, other work of the machine hardly ever."""
_COPIES = 2.5
SEGMENT_BYTES = 256_000
"""The most that uvloop hands over at once."""
MATCHES = (
    {"prompt_prefix": ("never",)}, {"json_mode": True}, {"tools": True}, {"code": True},
    {"scripts": ("hiragana",)}, {"prompt_chars_min": 10**9},
)  # fmt: skip
TABLE = Snapshot(
    epoch=1,
    models={
        "demo": ModelSnapshot(
            baseline="full",
            variants={"full": Variant(url="http://full")},
            slices=tuple(
                SliceRule.model_validate({"name": f"rule{number}", "match": match})
                for number, match in enumerate(MATCHES)
            ),
        )
    },
)
N = 15_900_000
FEWER = 3_000_000
"""For bodies whose scan takes seconds in all; its steps are alike."""


def limit_seconds() -> float:
    """The limit; on a machine that is slow now, so many times what joining a largest body costs."""
    pieces = [bytes(SEGMENT_BYTES)] * (N // SEGMENT_BYTES)
    began = time.thread_time()
    b"".join(pieces)
    return max(LIMIT_SECONDS, _COPIES * (time.thread_time() - began))


def skipped(item: bytes, size: int = N) -> bytes:
    return b'{"model":"demo","x":[' + item * (size // len(item)) + b"1]}"


def spoken(text: str) -> bytes:
    return b'{"model":"demo","messages":[{"role":"user","content":"' + text.encode() + b'"}]}'


BODIES: dict[str, Callable[[], bytes]] = {
    "one_string": lambda: spoken("x" * N),
    "escapes": lambda: spoken("\\u0061" * (N // 6)),
    "short_escapes": lambda: spoken("\\n" * (N // 2)),
    "not_ascii": lambda: spoken("\u4e2d" * (N // 3)),
    "objects": lambda: skipped(b"{},"),
    "objects_and_an_escape": lambda: skipped(b"{},")[:-3] + b'"\\u0061"]}',
    "members": lambda: skipped(b'{"a":1},').replace(b'"x"', b'"tools":[{"n":1},{"n":1}],"x"', 1),
    "names": lambda: skipped(b'"n",'),
    "arrays": lambda: skipped(b"[[]],"),
    "deep_arrays": lambda: skipped(b"[" * 800 + b"]" * 800 + b","),
    "deep_objects": lambda: skipped(b'{"a":' * 300 + b"1" + b"}" * 300 + b","),
    "mixed": lambda: skipped(b'[{"a":[{"b":[{"c":[1]}]}]}],', FEWER),
    "numbers": lambda: skipped(b"1,").replace(b'"x"', b'"prompt"', 1),
    "one_number": lambda: b'{"model":"demo","x":' + b"1" * N + b"}",
    "blanks": lambda: b'{"model":"demo",' + b" " * N + b'"x":1}',
    "tiny_messages": lambda: skipped(b'{"role":"user","content":"a"},').replace(
        b'"x"', b'"messages"', 1
    ),
    "small_numbers": lambda: skipped(b"1,", 130_000).replace(b'"x"', b'"messages"', 1),
    "small_objects": lambda: skipped(b"{},", 130_000).replace(b'"x"', b'"messages"', 1),
    "small_texts": lambda: skipped(b'"",', 130_000).replace(b'"x"', b'"input"', 1),
    "user": lambda: b'{"model":"demo","user":"' + b"x" * N + b'"}',
    "fields": lambda: b'{"model":"demo",' + b'"":1,' * (N // 5) + b'"x":1}',
    "routing_fields": lambda: b'{"model":"demo",' + b'"n":1,' * (N // 6) + b'"x":1}',
}  # fmt: skip


class Stopwatch:
    """Measures every callback of the running loop, and what a test calls as one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.longest_seconds = 0.0
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon

        def call_soon_timed(callback: Callable[..., Any], *given: Any, **more: Any) -> Any:
            return call_soon(lambda: self.call(callback, *given), **more)

        monkeypatch.setattr(loop, "call_soon", call_soon_timed)

    def call(self, callback: Callable[..., Any], *given: Any) -> None:
        began = time.thread_time()
        try:
            callback(*given)
        finally:
            self.longest_seconds = max(self.longest_seconds, time.thread_time() - began)


def gateway() -> WireGateway:
    answer = whole({"choices": []})
    return WireGateway(lambda *_: answer, TABLE, {"acme": TenantLimits()}, LimitSettings())


def head_of(body: bytes) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", "authorization: Bearer acme"]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode()


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    # It runs over all that pytest holds; a gateway has frozen what it started with.
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come")


async def send(watch: Stopwatch, wire: Wire, data: bytes) -> None:
    """Feed the bytes as fast as the connection is read."""
    for at in range(0, len(data), SEGMENT_BYTES):
        await until(lambda: not wire.transport.is_reading_paused)
        watch.call(wire.feed, data[at : at + SEGMENT_BYTES])
        await asyncio.sleep(0)


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES.keys())
async def test_no_body_takes_a_callback_long(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], bytes]
) -> None:
    served, body, watch = gateway(), make(), Stopwatch(monkeypatch)
    for _ in range(TRIES):
        wire = served.connect()
        watch.longest_seconds = 0.0
        await send(watch, wire, head_of(body) + body)
        await until(lambda wire=wire: bool(wire.sent))  # type: ignore[misc]
        assert wire.sent[:13] in (b"HTTP/1.1 200 ", b"HTTP/1.1 400 ")
        if watch.longest_seconds < (limit := limit_seconds()):
            break
    assert watch.longest_seconds < limit


TINY = {
    "chunks": b"POST /tokenize HTTP/1.1\r\nhost: x\r\nauthorization: Bearer acme\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 80_000,
    "requests": b"POST /tokenize HTTP/1.1\r\nhost:\r\n\r\n" * 7000,
    "good_requests": (head_of(b"{}") + b"{}") * 2000,
    "other_routes": b"GET /nothing HTTP/1.1\r\nhost:\r\n\r\n" * 7000,
    "upgrades": b"GET / HTTP/1.1\r\nhost:\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" * 4000,
    "blank_lines": b"\r\n" * 200_000,
}


@pytest.mark.parametrize("data", TINY.values(), ids=TINY.keys())
async def test_no_read_of_tiny_parts_takes_a_callback_long(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    served = gateway()
    first = served.connect()
    first.feed(b"GET /nothing HTTP/1.1\r\nhost:\r\n\r\n")  # the application is built on first use
    await until(lambda: bool(first.sent))
    watch = Stopwatch(monkeypatch)
    for _ in range(TRIES):
        wire = served.connect()
        watch.longest_seconds = 0.0
        watch.call(wire.feed, data[:SEGMENT_BYTES])
        for _ in range(2000):
            await asyncio.sleep(0)
        assert len(wire._protocol.pipeline) < 300
        if watch.longest_seconds < (limit := limit_seconds()):
            break
    assert watch.longest_seconds < limit


async def test_many_refused_requests_in_a_row_are_all_answered() -> None:
    wire = gateway().connect()
    wire.feed((head_of(b"{") + b"{") * 250)
    for _ in range(3000):
        await asyncio.sleep(0)
    assert wire.sent.count(b"HTTP/1.1 400 ") == 250
