"""Buffer for the part of an answer that its client has not got yet, and checks of it. Pure.

A whole body is buffered until it is complete, a stream until its first event is sound. Later the
buffer holds the beginning of an event. It is off the byte path: whole events pass it by.

Reading order: ResponseBuffer, first_event_fault, whole_fault.
"""

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router import sse

BUFFER_LIMIT_BYTES = 8 * 1024 * 1024
"""A whole body above this size is passed on as it comes and can no longer be replaced."""
_PROXY_STATUSES = frozenset({502, 503})
"""Statuses of a proxy that did not reach the engine; with a 504 the engine may have the request."""


class ResponseBuffer:
    """Bytes that wait to be passed on; joined only when they must be read."""

    __slots__ = ("_pieces", "length")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.length = 0
        """Bytes in the buffer."""

    def add(self, data: bytes) -> bool:
        """Append a piece; returns whether an event ends in it."""
        tail = self._pieces[-1][-3:] if self._pieces else b""
        self._pieces.append(data)
        self.length += len(data)
        return sse.complete_length(tail + data) > 0

    @property
    def is_over_limit(self) -> bool:
        """Whether the buffer is over `BUFFER_LIMIT_BYTES`."""
        return self.length > BUFFER_LIMIT_BYTES

    @property
    def data(self) -> bytes:
        """All bytes in the buffer."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def take(self, length: int) -> bytes:
        """Remove and return the first `length` bytes."""
        data = self.data
        rest = data[length:]
        self._pieces = [rest] if rest else []
        self.length = len(rest)
        return data[:length]


def first_event_fault(events: bytes) -> Outcome | None:
    """The fault of a stream's first event; None unless the event is broken."""
    if sse.first_event_is_sound(events) is not False:
        return None
    return Outcome.SERVER_ERROR if sse.has_error_event(events) else Outcome.GARBAGE


def whole_fault(
    status: int, body: bytes, *, is_event_stream: bool, is_candidate: bool
) -> Outcome | None:
    """The fault for which a whole answer must not go to the client; None if it may.

    Args:
        status: Its status.
        body: Its body.
        is_event_stream: Whether its head names a stream, which then ended before a sound event.
        is_candidate: Whether a candidate gave it. Every answer of the baseline is passed on, except
            a proxy's statement that the baseline was never asked.
    """
    if status >= 400 and not sse.is_engine_error(body):
        # Written by a proxy in between or by a server that lacks the route, not by the engine.
        if is_candidate:
            return Outcome.GARBAGE
        if status in _PROXY_STATUSES:
            return Outcome.REFUSED
    return Outcome.GARBAGE if is_event_stream and is_candidate else None


def whole_outcome(status: int) -> Outcome:
    """The outcome of an attempt whose whole answer the client gets."""
    if status < 400:
        return Outcome.OK
    return Outcome.CLIENT_ERROR if status < 500 else Outcome.SERVER_ERROR
