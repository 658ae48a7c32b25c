"""Relay of an answer from a variant to the client. The byte path.

Before the client has seen anything the answer is buffered: a whole body until it is complete, a
stream until its first event with data is sound. From then on pieces are passed on as they come and
never parsed; references to them are kept where the stream can be continued. Comments of a stream
are no progress. They pass at once where no other build may answer any more. `Dispatch`
(`penumbra.router.dispatch.dispatch`) is the only subclass of `ResponseRelay` and decides what
follows a failed answer; both are one object, so that a token costs one call.

Reading order: ResponseRelay.on_head, on_body, on_end.
"""

import math
from abc import ABC, abstractmethod

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router import sse
from penumbra.router.dispatch.admissions import Admission
from penumbra.router.dispatch.answer_check import first_event_fault
from penumbra.router.dispatch.attempt import Attempt, Client
from penumbra.router.dispatch.attribution import Suspect
from penumbra.router.dispatch.continuation import KINDS
from penumbra.router.dispatch.kept_stream import KeptStream
from penumbra.router.dispatch.plan import Plan
from penumbra.router.dispatch.request_shape import RequestShape
from penumbra.router.dispatch.response_buffer import BUFFER_LIMIT_BYTES, ResponseBuffer
from penumbra.router.dispatch.services import DispatchServices
from penumbra.router.dispatch.stream_end import StreamEnd, end_of
from penumbra.router.mirror.token_tap import TokenTap
from penumbra.router.upstream.port import Headers, Stream, UpstreamRequest

_COLON = ord(":")
_NOT_IMPLEMENTED = 501
_FIRST_SERVER_ERROR = 500


class ResponseRelay(ABC):
    """Receives the answers of one attempt after the other, until one goes to the client.

    Args:
        plan: The order of the attempts.
        attempt: The first attempt.
        request: The request that every attempt sends.
        client: The client that gets the answer.
        shape: What the request asks for.
        services: Limits, clock, judge.
    """

    __slots__ = (
        "_admission", "_before_last", "_began_at", "_buffer", "_client", "_clock",
        "_has_error_event", "_held", "_is_begun", "_is_candidate", "_is_event_stream", "_is_raw",
        "_is_relaying", "_kept", "_last", "_limits", "_patience", "_plan", "_progressed_at",
        "_request", "_services", "_shape", "_stream", "_suspect", "_tap", "attempt", "deadline",
        "headers", "slice_name", "status",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        attempt: Attempt,
        request: UpstreamRequest,
        client: Client,
        shape: RequestShape,
        services: DispatchServices,
    ) -> None:
        self._plan = plan
        self.attempt = attempt
        """The attempt whose answer the client gets, or would get now."""
        self.slice_name = plan.slice_name
        """The request's slice."""
        self._request = request
        self._client = client
        self._shape = shape
        self._services = services
        self._limits = services.limits
        self._clock = services.clock
        self._stream: Stream | None = None
        self._tap: TokenTap | None = None
        self._kept: KeptStream | None = None
        self._is_candidate = attempt.name != plan.baseline
        self._began_at = 0.0
        """When the present attempt began."""
        self._patience = 0.0
        """Limit on the first event of a stream, or on a whole answer, seconds."""
        self._admission: Admission | None = None
        self._suspect: Suspect | None = None
        self._held: tuple[Attempt, int, Headers, bytes] | None = None
        """A refusal by the candidate, should the baseline give no answer; or the other way."""
        self.deadline = math.inf
        """When `expire` is due, unless there was progress; seconds of the services' clock."""
        self._clear()

    def _reset(self) -> None:
        """Forget the last attempt's answer before another one begins."""
        if self._tap is not None:
            self._tap.restart()
        self.close()
        self._clear()

    def _clear(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self._progressed_at = -math.inf
        self._buffer = ResponseBuffer()
        self._is_event_stream = False
        self._is_begun = False  # the client has the head
        self._is_relaying = False  # and the first event with data, or a part of a large body
        self._is_raw = False
        self._has_error_event = False
        self._before_last = self._last = b""
        if self._shape.may_be_continued and self._request.path in KINDS:
            self._kept = KeptStream(self._services.kept_bytes)

    def close(self) -> None:
        """Give back what is kept of the stream: the dispatch is over."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    @property
    def last_events(self) -> bytes:
        """The last pieces of a stream with data, two or more where there are so many."""
        return self._before_last + self._last if self._kept is None else self._kept.tail

    @abstractmethod
    def start(self) -> None:
        """Try the variant whose turn it is."""

    @abstractmethod
    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""

    @abstractmethod
    def _fail(self, outcome: Outcome) -> None:
        """Go on with the next attempt, if any: the client has seen nothing of this one."""

    @abstractmethod
    def _end_whole(self, body: bytes) -> None:
        """Take a whole answer, which is complete."""

    @abstractmethod
    def _begin_relaying(self, *, is_sound: bool) -> None:
        """Note that the first data of an answer passes to the client, and whether it is sound."""

    @abstractmethod
    def _finish_stream(self, end: StreamEnd) -> None:
        """Finish an answer that was relayed to its end."""

    @property
    @abstractmethod
    def _is_last(self) -> bool:
        """Whether no other build may answer the request any more."""

    def _abort_attempt(self) -> None:
        if self._stream is not None:
            self._stream.abort()
            self._stream = None

    def on_head(self, status: int, headers: Headers) -> None:
        """See `Receiver`."""
        self._request.budget.left += 1  # a server that answers was not killed by the request
        self.status, self.headers = status, headers
        if status >= _FIRST_SERVER_ERROR and self._fails_at_once(status):
            self._abort_attempt()
            self._fail(Outcome.SERVER_ERROR)
            return
        self._is_event_stream = sse.is_named_by(headers)
        if not self._is_event_stream:
            # A stream's limit goes on to its first event; a whole answer follows its head at once.
            self._progressed_at = now = self._clock()
            self.deadline = now + self._limits.idle_seconds

    def _fails_at_once(self, status: int) -> bool:
        """Whether a server error is the end of the attempt: its body says nothing more."""
        asks_for_rows = self._tap is not None and self._tap.asks_for_rows
        return self._is_candidate and status != _NOT_IMPLEMENTED and not asks_for_rows

    def _note_progress(self) -> None:
        self._progressed_at = self._clock()

    def on_body(self, data: bytes) -> None:
        """See `Receiver`. Runs once for each token of a stream."""
        if (
            self._is_relaying
            and not self._buffer.length
            and data.endswith(b"\n\n")
            and data[0] != _COLON
            and sse.ERROR_MARK not in data
        ):
            self._progressed_at = self._clock()
            if self._kept is not None:
                self._kept.add(data)
            else:
                self._before_last = self._last
                self._last = data
            self._client.send_piece(data)
            return
        self._on_unusual_body(data)

    def _on_unusual_body(self, data: bytes) -> None:
        buffer = self._buffer
        if not self._is_event_stream or self._is_raw:
            self._progressed_at = self._clock()
            buffer.append(data)
            if self._is_relaying or buffer.length > BUFFER_LIMIT_BYTES:
                if not self._is_relaying:
                    self._begin_relaying(is_sound=self.status // 100 == 2)
                self._relay_buffered(buffer.length)
        elif buffer.add(data):
            self._take_events(buffer)
        elif buffer.is_over_limit:
            self._pass_unread(buffer)

    def _pass_unread(self, buffer: ResponseBuffer) -> None:
        """Pass on an event that is larger than the limit, and what follows, without reading it."""
        self._is_raw = True
        self.close()
        self._note_progress()
        if not self._is_relaying:
            self._begin_relaying(is_sound=True)
        self._relay_buffered(buffer.length)

    def _take_events(self, buffer: ResponseBuffer) -> None:
        length = sse.complete_length(buffer.data)
        sound = sse.length_before_error(buffer.data[:length])
        if 0 < sound < length:
            # What came before an error passes first, however the network cut it into pieces.
            self._pass_events(buffer, sound)
            if buffer is not self._buffer:
                return
            length = sse.complete_length(buffer.data)
        self._pass_events(buffer, length)

    def _pass_events(self, buffer: ResponseBuffer, length: int) -> None:
        events = buffer.data[:length]
        if not self._is_relaying and not self._admits(events):
            return
        has_data = next(sse.payloads(events), None) is not None
        if has_data:
            self._note_progress()
        if self._is_relaying and sse.has_error_event(events):
            self._has_error_event = True
            if self._kept_pieces is not None:
                self._abort_attempt()
                self.on_fail(Outcome.DIED, "an error event within the stream")
                return
        self._relay_buffered(len(events), is_kept=has_data)

    @property
    def _kept_pieces(self) -> list[bytes] | None:
        return None if self._kept is None else self._kept.pieces

    def _admits(self, events: bytes) -> bool:
        """Whether the events at the start of a stream may pass; fails a broken candidate."""
        is_sound = sse.first_event_is_sound(events)
        if is_sound is None:  # comments only
            return self._is_last
        if self._is_candidate and not is_sound:
            self._abort_attempt()
            fault = first_event_fault(events) or Outcome.GARBAGE
            if self._is_begun:
                self.on_fail(fault, "a broken first event")
            else:
                self._fail(fault)
            return False
        self._begin_relaying(is_sound=is_sound)
        self._is_relaying = True
        self.deadline = self._clock() + self._limits.idle_seconds
        return True

    def _relay_buffered(self, length: int, *, is_kept: bool = False) -> None:
        """Send the first `length` buffered bytes; the rest stays buffered.

        Args:
            length: How many.
            is_kept: Whether they are events with data, which a continuation needs.
        """
        if not self._is_begun:
            self._is_begun = True
            self._client.send_head(self.status, self.headers)
        if not self._is_event_stream or self._is_raw:
            self._is_relaying = True
        piece = self._buffer.take(length)
        if is_kept and self._kept is not None:
            self._kept.add(piece)
        elif is_kept:
            self._before_last, self._last = self._last, piece
        if piece:
            self._client.send_piece(piece)

    def on_end(self) -> None:
        """See `Receiver`."""
        self._stream = None
        if self._is_begun:
            self._end_relay()
        else:
            self._end_whole(self._buffer.data)

    def _end_relay(self) -> None:
        end = StreamEnd.MARKED
        if self._is_event_stream and not self._is_raw:
            end = end_of(self._request.path, self.last_events + self._buffer.data)
            if self._has_error_event:
                end = StreamEnd.FAILED
            if end is StreamEnd.OPEN:
                self.on_fail(Outcome.DIED, "the stream ended before its answer")
                return
        if self._buffer.length:
            self._relay_buffered(self._buffer.length)
        self._finish_stream(end)
