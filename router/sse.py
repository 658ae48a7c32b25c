"""Server-sent events as bytes: finds their ends, reads their data, checks them for errors. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

ERROR_MARK = b'"error"'
"""Bytes that every event with an error holds. Other events hold them only if a whole JSON string is
this word, so a piece of a stream without them reports no error and needs no parsing."""

DONE = b"data: [DONE]\n\n"
_EVENT_END = re.compile(rb"\n\r?\n")


def is_named_by(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the header lines of an answer, names in lower case, say that it is a stream."""
    for name, value in headers:
        if name == b"content-type" and value[:17].lower() == b"text/event-stream":
            return True
    return False


def complete_length(data: bytes) -> int:
    """Length of the whole events at the start of `data`; 0 if there is none.

    An event ends with an empty line, and a line with a line feed, with or without a carriage return
    before it.
    """
    plain, mixed = data.rfind(b"\n\n"), data.rfind(b"\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, mixed + 3 if mixed >= 0 else 0)


def payloads(data: bytes) -> Iterator[bytes]:
    """Yield the data of each event in `data`; comments and events without data are left out."""
    for event in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].lstrip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines:
            yield b"\n".join(lines)


def ends_with_done(tail: bytes) -> bool:
    """Whether the last event of a stream is `[DONE]`, which says that it is complete."""
    found = list(payloads(tail))
    return bool(found) and found[-1] == b"[DONE]"


def read_object(payload: bytes) -> dict[str, Any] | None:
    """Decode the JSON object of one event's data; None if it is no object."""
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def has_error_event(data: bytes) -> bool:
    """Whether one of the events in `data` reports an error."""
    return any(
        is_error(value)
        for payload in payloads(data)
        if ERROR_MARK in payload and (value := read_object(payload)) is not None
    )


def length_before_error(data: bytes) -> int:
    """Length of the whole events at the start of `data` before the first that reports an error."""
    if ERROR_MARK not in data:
        return len(data)
    start = 0
    for end in _EVENT_END.finditer(data):
        if has_error_event(data[start : end.end()]):
            return start
        start = end.end()
    return len(data)


def is_error(value: dict[str, Any]) -> bool:
    """Whether an object is an engine's error, in OpenAI's form or vLLM's older one."""
    return bool(value.get("error")) or value.get("object") == "error"


def first_event_is_sound(data: bytes) -> bool | None:
    """Whether the first event with data is a JSON object without an error; `[DONE]` is not.

    Returns:
        None while there is no whole event with data.
    """
    for payload in payloads(data[: complete_length(data)]):
        value = read_object(payload)
        return value is not None and not is_error(value)
    return None


def is_engine_error(body: bytes) -> bool:
    """Whether a 4xx or 5xx body was written by an engine: OpenAI's error object, or vLLM's old one.

    Anything else comes from a proxy in between, or from a server that lacks the route.
    """
    value = read_object(body)
    if value is None:
        return False
    return isinstance(value.get("error"), dict) or value.get("object") == "error"
