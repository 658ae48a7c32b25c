"""Checks of an answer: whether it is one, and what a refusal says. Pure.

A candidate's answer goes to the client only if it is an answer to what was asked: a JSON object
without an error, or a stream whose first event is one. The same checks tell whether the baseline
answered a request properly, by which a candidate's failure is judged.

Reading order: AnswerKind, whole_fault, first_event_fault, is_proper.
"""

import msgspec

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router import sse

SCAN_BYTES = 1024 * 1024
"""A longer body is checked at its two ends only."""
_END_BYTES = 64
_FIRST_ERROR = 400
_FIRST_SERVER_ERROR = 500
_PROXY_STATUSES = frozenset({502, 503})
"""Statuses of a proxy that did not reach the engine; with a 504 the engine may have the request."""
_WHITE = b" \t\r\n"


class AnswerKind(msgspec.Struct, frozen=True):
    """The kind of answer that a request asks for."""

    is_stream: bool | None = None
    """Whether events are asked for; None: either may come."""
    is_json: bool = True
    """Whether a whole answer is a JSON object; else any bytes will do."""


_ABSENT = msgspec.Raw()


class _Error(msgspec.Struct):
    """The field of a JSON object that says that it is an error."""

    error: msgspec.Raw = _ABSENT
    object: msgspec.Raw = _ABSENT


_scan = msgspec.json.Decoder(_Error).decode
_NO_ERROR = (b"", b"null", b"false", b"{}", b"[]", b'""', b"0")


def whole_fault(
    status: int, body: bytes, kind: AnswerKind, *, is_event_stream: bool
) -> Outcome | None:
    """The fault of a candidate's whole answer; None if it is an answer or an engine's refusal.

    Args:
        status: Its status.
        body: Its body.
        kind: The kind of answer that was asked for.
        is_event_stream: Whether its head names a stream, which then ended before a sound event.
    """
    if status >= _FIRST_SERVER_ERROR:
        return Outcome.SERVER_ERROR
    if status >= _FIRST_ERROR:
        return Outcome.REJECTED
    if not is_success(status) or is_event_stream or kind.is_stream:
        return Outcome.GARBAGE
    if not kind.is_json:
        return None if body else Outcome.GARBAGE
    return body_fault(body)


def body_fault(body: bytes) -> Outcome | None:
    """The fault of a body that should be a JSON object without an error."""
    if len(body) > SCAN_BYTES:
        begins = body[:_END_BYTES].lstrip(_WHITE).startswith(b"{")
        ends = body[-_END_BYTES:].rstrip(_WHITE).endswith(b"}")
        return None if begins and ends else Outcome.GARBAGE
    try:
        found = _scan(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Outcome.GARBAGE
    if found.error is not _ABSENT and bytes(found.error).strip(_WHITE) not in _NO_ERROR:
        return Outcome.SERVER_ERROR
    return Outcome.SERVER_ERROR if bytes(found.object) == b'"error"' else None


def is_success(status: int) -> bool:
    """Whether a status says that the answer is in the body."""
    return status // 100 == 2 and status not in (204, 205)


def is_proper(status: int, body: bytes, kind: AnswerKind) -> bool:
    """Whether a whole answer of the baseline answers the request."""
    if not is_success(status):
        return False
    return body_fault(body) is None if kind.is_json else bool(body)


def is_of_a_proxy(status: int, body: bytes) -> bool:
    """Whether a proxy says that it did not reach the engine, so the request may be sent again."""
    return status in _PROXY_STATUSES and not sse.is_engine_error(body)


def first_event_fault(events: bytes) -> Outcome | None:
    """The fault of a stream's first event; None unless the event is broken."""
    if sse.first_event_is_sound(events) is not False:
        return None
    return Outcome.SERVER_ERROR if sse.has_error_event(events) else Outcome.GARBAGE


def whole_outcome(status: int) -> Outcome:
    """The outcome of an attempt at the baseline whose whole answer the client gets."""
    if status < _FIRST_ERROR:
        return Outcome.OK
    return Outcome.CLIENT_ERROR if status < _FIRST_SERVER_ERROR else Outcome.SERVER_ERROR
