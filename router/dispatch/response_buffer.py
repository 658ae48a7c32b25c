"""The part of an answer that its client has not got yet, and what can be told from it. Pure.

A whole body is held until it is complete, a stream until its first event is sound; afterwards what
is held is the beginning of an event. Off the byte path: whole events are never held.

Reading order: ResponseBuffer, first_event_fault, whole_fault.
"""

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router import sse

HOLD_LIMIT_BYTES = 8 * 1024 * 1024
"""A whole body above this is passed on as it comes, and can no longer be replaced."""
_PROXY_STATUSES = frozenset({502, 503})
"""What a proxy says when it could not hand the request over; after a 504 the engine may have it."""


class ResponseBuffer:
    """Bytes that wait to be passed on; joined only when somebody must look at them."""

    __slots__ = ("_pieces", "length")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.length = 0
        """Bytes; 0 if nothing is held."""

    def add(self, data: bytes) -> bool:
        """Hold a piece; whether an event ends in it."""
        tail = self._pieces[-1][-3:] if self._pieces else b""
        self._pieces.append(data)
        self.length += len(data)
        return sse.complete_length(tail + data) > 0

    @property
    def is_over_limit(self) -> bool:
        """Whether more is held than may be."""
        return self.length > HOLD_LIMIT_BYTES

    @property
    def data(self) -> bytes:
        """All that is held."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def take(self, length: int) -> bytes:
        """The first so many bytes, which are held no longer."""
        data = self.data
        rest = data[length:]
        self._pieces = [rest] if rest else []
        self.length = len(rest)
        return data[:length]


def first_event_fault(held: bytes) -> Outcome | None:
    """Why a stream must not begin with the first of these events; None unless it is broken."""
    if sse.first_event_is_sound(held) is not False:
        return None
    return Outcome.SERVER_ERROR if sse.has_error_event(held) else Outcome.GARBAGE


def whole_fault(
    status: int, body: bytes, *, is_event_stream: bool, is_candidate: bool
) -> Outcome | None:
    """Why a whole answer is not one for the client; None: it is.

    Args:
        status: Its status.
        body: Its body.
        is_event_stream: It says that it is a stream, and ended before a sound event.
        is_candidate: A candidate gave it. The baseline's answers are passed on whatever they are,
            but for a proxy's word that it was never asked.
    """
    if status >= 400 and not sse.is_engine_error(body):
        # Written by a proxy in between or by a server that lacks the route, not by the engine.
        if is_candidate:
            return Outcome.GARBAGE
        if status in _PROXY_STATUSES:
            return Outcome.REFUSED
    return Outcome.GARBAGE if is_event_stream and is_candidate else None


def whole_outcome(status: int) -> Outcome:
    """How an attempt ended whose whole answer the client gets."""
    if status < 400:
        return Outcome.OK
    return Outcome.CLIENT_ERROR if status < 500 else Outcome.SERVER_ERROR
