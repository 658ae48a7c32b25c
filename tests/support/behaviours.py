"""Behaviours of a scripted upstream for one request: a healthy engine, and ways to misbehave.

Each function returns a behaviour for `ScriptedUpstream`. Reading order: `engine`, `dying_stream`,
then the small ones.
"""

import json
from collections.abc import Callable, Sequence
from typing import Literal

from tests.support.engine_wire import Engine, EngineRefusal, engine_error, event
from tests.support.scripted_connection import Behaviour, Exchange
from tests.support.scripted_upstream import Gate

End = Literal["fin", "rst", "hang", "end"]
"""How a broken answer breaks: closed in order, reset, nothing more, or ended as if complete."""

JSON_TYPE = ("content-type", "application/json")
STREAM_TYPE = ("content-type", "text/event-stream; charset=utf-8")
Headers = Sequence[tuple[str, str]]


def head(status: int, headers: Headers, reason: str = "Whatever") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def full_response(status: int, body: bytes, headers: Headers = (JSON_TYPE,)) -> bytes:
    return head(status, [*headers, ("content-length", str(len(body)))]) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
STREAM_HEAD = head(200, [STREAM_TYPE, ("transfer-encoding", "chunked")], "OK")


def engine(build: Engine, *, headers: Headers = (), gate: Gate | None = None) -> Behaviour:
    """A healthy engine: unary and streamed answers, and its own 400.

    Args:
        build: What it says.
        headers: More headers of its answers.
        gate: To be passed before the answer begins.
    """

    async def behave(exchange: Exchange) -> None:
        if exchange.request.method == "GET":
            await exchange.send(full_response(200, build.cards))
            return
        path, body = _route(exchange), json.loads(exchange.request.body)
        if gate is not None:
            await gate.passed()
        try:
            if body.get("stream"):
                events = build.events(path, body)
                start = head(200, [STREAM_TYPE, ("transfer-encoding", "chunked"), *headers], "OK")
                await exchange.send(start)
                for data in events:
                    await exchange.send(chunk(data))
                await exchange.send(LAST_CHUNK)
            else:
                answer = build.answer(path, body)
                await exchange.send(full_response(200, answer, [JSON_TYPE, *headers]))
        except EngineRefusal as refusal:
            await exchange.send(full_response(400, engine_error(str(refusal), 400)))

    return behave


def dying_stream(
    build: Engine,
    *,
    after_events: int,
    end: End = "fin",
    partial: bytes | Callable[[bytes], bytes] = b"",
    gate: Gate | None = None,
) -> Behaviour:
    """The first events of a stream, perhaps a part of the next one, and then no more.

    Args:
        build: What it would have said.
        after_events: How many events are sent whole, the role event included.
        end: How it breaks off.
        partial: Bytes sent after them, or a function of the event that would have been next.
        gate: To be passed before it breaks off.
    """

    async def behave(exchange: Exchange) -> None:
        events = build.events(_route(exchange), json.loads(exchange.request.body))
        await exchange.send(STREAM_HEAD)
        for data in events[:after_events]:
            await exchange.send(chunk(data))
        rest = partial(events[after_events]) if callable(partial) else partial
        if rest:
            await exchange.send(chunk(rest))
        if gate is not None:
            await gate.passed()
        await break_off(exchange, end)

    return behave


async def break_off(exchange: Exchange, end: End) -> None:
    if end == "fin":
        exchange.fin()
    elif end == "rst":
        await exchange.all_read()
        exchange.rst()
    elif end == "hang":
        await exchange.peer_closed()
    else:
        await exchange.send(LAST_CHUNK)


def respond(status: int, body: bytes, headers: Headers = (JSON_TYPE,)) -> Behaviour:
    """A whole answer with a content-length."""
    return raw(full_response(status, body, headers), then=None)


def raw(data: bytes, *, then: End | None = "fin") -> Behaviour:
    """Send exactly these bytes; `then` None keeps the connection for the next request."""

    async def behave(exchange: Exchange) -> None:
        if data:
            await exchange.send(data)
        if then is not None:
            await break_off(exchange, then)

    return behave


def in_pieces(pieces: Sequence[bytes]) -> Behaviour:
    """Send pieces, each after the peer has read the one before."""

    async def behave(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send_apart(piece)

    return behave


def gated(*steps: bytes | Gate, then: End | None = None) -> Behaviour:
    """Send pieces, stopping at each gate between them."""

    async def behave(exchange: Exchange) -> None:
        for step in steps:
            if isinstance(step, Gate):
                await step.passed()
            else:
                await exchange.send(step)
        if then is not None:
            await break_off(exchange, then)

    return behave


def hang() -> Behaviour:
    """Take the request and never answer."""
    return raw(b"", then="hang")


def close_before_head(end: End = "fin") -> Behaviour:
    """Take the request and close."""
    return raw(b"", then=end)


def stream_of(*events: bytes, end: End = "end") -> Behaviour:
    """A stream of exactly these events, each a chunk."""
    return raw(STREAM_HEAD + b"".join(chunk(data) for data in events), then=end)


def error_event(message: str = "engine core died") -> bytes:
    """An error within a stream as vLLM reports it."""
    error = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
    return event({"error": error})


def endless(piece: bytes, total_bytes: int) -> Behaviour:
    """A stream that repeats one event until so many bytes are sent, then `[DONE]`."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        while exchange.sent_bytes < total_bytes:
            await exchange.send(chunk(piece))
            exchange.request.sent_bytes = exchange.sent_bytes
        await exchange.send(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    return behave


def _route(exchange: Exchange) -> str:
    path = exchange.request.target.split("?")[0]
    for route in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"):
        if path.endswith(route):
            return route
    return "/detokenize" if path.endswith("/detokenize") else "/tokenize"
