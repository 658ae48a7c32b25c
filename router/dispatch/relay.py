"""Relay of an answer from a variant to the client. The byte path.

Before the client has seen anything the answer is buffered: a whole body until it is complete, a
stream until its first event is sound. From then on pieces are passed on as they come and never
parsed; references to them are kept, so that a stream which breaks off can be continued. `Dispatch`
(`penumbra.router.dispatch.dispatch`) is the only subclass of `ResponseRelay` and decides what
follows a failed answer; both are one object, so that a token costs one call.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router import sse
from penumbra.router.dispatch.attempt import Attempt, Client
from penumbra.router.dispatch.continuation import KINDS
from penumbra.router.dispatch.plan import Plan
from penumbra.router.dispatch.response_buffer import (
    ResponseBuffer,
    first_event_fault,
    whole_fault,
    whole_outcome,
)
from penumbra.router.mirror.token_tap import TokenTap
from penumbra.router.settings import LimitSettings
from penumbra.router.upstream.port import Headers, Stream, UpstreamRequest

CONTINUABLE_BYTES = 4 * 1024 * 1024
"""Most bytes of a stream that are remembered; a longer stream cannot be continued."""


class ResponseRelay(ABC):
    """Receives the answers of one attempt after the other, until one goes to the client.

    Args:
        plan: The order of the attempts.
        attempt: The first attempt.
        request: The request that every attempt sends.
        client: The client that gets the answer.
        limits: Time limits.
        clock: Monotonic seconds.
    """

    __slots__ = (
        "_attempt", "_buffer", "_client", "_clock", "_is_event_stream", "_is_relaying", "_limits",
        "_plan", "_progressed_at", "_request", "_sent", "_sent_bytes", "_stream", "_tap",
        "deadline", "headers", "status",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        attempt: Attempt,
        request: UpstreamRequest,
        client: Client,
        limits: LimitSettings,
        clock: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._attempt = attempt
        self._request = request
        self._client = client
        self._limits = limits
        self._clock = clock
        self._stream: Stream | None = None
        self._tap: TokenTap | None = None
        self.deadline = math.inf
        """When `expire` is due, unless there was progress; monotonic seconds."""
        self._progressed_at = -math.inf
        self._reset()

    def _reset(self) -> None:
        """Forget the last attempt's answer before another one begins."""
        if self._tap is not None:
            self._tap.restart()
        self.status = 0
        self.headers: Headers = []
        self._buffer = ResponseBuffer()
        self._is_event_stream = False
        self._is_relaying = False
        self._sent: list[bytes] | None = [] if self._request.path in KINDS else None
        self._sent_bytes = 0

    @property
    def whole_body(self) -> bytes:
        """The body of an answer that the client gets whole; empty if it is or was relayed."""
        return b"" if self._is_relaying else self._buffer.data

    @abstractmethod
    def start(self) -> None:
        """Try the variant whose turn it is."""

    @abstractmethod
    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""

    @abstractmethod
    def _fail(self, outcome: Outcome) -> None:
        """Go on with the next attempt, if any: the client has seen nothing of this one."""

    def _abort_attempt(self) -> None:
        if self._stream is not None:
            self._stream.abort()
            self._stream = None

    def on_head(self, status: int, headers: Headers) -> None:
        """See `Receiver`."""
        self._progressed_at = self._clock()
        self.deadline = self._progressed_at + self._limits.idle_seconds
        self.status, self.headers = status, headers
        if status >= 500 and self._attempt.name != self._plan.baseline:
            self._abort_attempt()
            self._fail(Outcome.SERVER_ERROR)
            return
        self._is_event_stream = any(
            name == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in headers
        )

    def on_body(self, data: bytes) -> None:
        """See `Receiver`. Runs once for each token of a stream."""
        self._progressed_at = self._clock()
        if (
            self._is_relaying
            and not self._buffer.length
            and data.endswith(b"\n\n")
            and sse.ERROR_MARK not in data
        ):
            if self._sent is not None:
                self._record_sent(self._sent, data)
            self._client.send_piece(data)
            return
        self._on_unusual_body(data)

    def _record_sent(self, sent: list[bytes], data: bytes) -> None:
        sent.append(data)
        self._sent_bytes += len(data)
        if self._sent_bytes > CONTINUABLE_BYTES:
            self._sent = None

    def _on_unusual_body(self, data: bytes) -> None:
        buffer = self._buffer
        ends_event = buffer.add(data)
        if not self._is_event_stream:
            if self._is_relaying or buffer.is_over_limit:
                self._relay_buffered(buffer.length)
        elif (ends_event or buffer.is_over_limit) and (
            self._is_relaying or self._admits(buffer.data)
        ):
            self._relay_events(buffer)

    def _admits(self, events: bytes) -> bool:
        """Whether the stream may begin now; fails a candidate whose first event is broken."""
        if self._attempt.name != self._plan.baseline:
            fault = first_event_fault(events)
            if fault is not None:
                self._abort_attempt()
                self._fail(fault)
                return False
        return sse.first_event_is_sound(events) is not None or self._buffer.is_over_limit

    def _relay_events(self, buffer: ResponseBuffer) -> None:
        length = sse.complete_length(buffer.data)
        if (
            self._is_relaying
            and self._sent is not None
            and sse.has_error_event(buffer.data[:length])
        ):
            self._abort_attempt()
            self.on_fail(Outcome.DIED, "an error event within the stream")
        elif length:
            self._relay_buffered(length)
        elif buffer.is_over_limit:
            self._abort_attempt()
            self.on_fail(Outcome.GARBAGE, "an event larger than the limit")

    def _relay_buffered(self, length: int) -> None:
        """Send the first `length` buffered bytes; the rest stays buffered."""
        if not self._is_relaying:
            self._is_relaying = True
            self._client.send_head(self.status, self.headers)
        piece = self._buffer.take(length)
        if piece:
            if self._sent is not None:
                self._record_sent(self._sent, piece)
            self._client.send_piece(piece)

    def on_end(self) -> None:
        """See `Receiver`."""
        self._stream = None
        if self._is_relaying:
            self._end_relay()
        else:
            self._end_whole(self._buffer.data)

    def _end_relay(self) -> None:
        sent, buffer = self._sent, self._buffer
        if (
            self._is_event_stream
            and sent is not None
            and not sse.ends_with_done(b"".join([*sent[-4:], buffer.data]))
        ):
            self.on_fail(Outcome.DIED, "the stream ended without [DONE]")
            return
        if buffer.length:
            self._relay_buffered(buffer.length)
        self._attempt.record_end(self._plan.slice_name, Outcome.OK)
        self._client.finish()

    def _end_whole(self, body: bytes) -> None:
        status = self.status
        if self._tap is not None and self._tap.withdraws(status, body):
            self._reset()
            self.start()
            return
        is_candidate = self._attempt.name != self._plan.baseline
        fault = whole_fault(
            status, body, is_event_stream=self._is_event_stream, is_candidate=is_candidate
        )
        if fault is not None:
            self._fail(fault)
            return
        self._attempt.record_end(self._plan.slice_name, whole_outcome(status))
        self._client.send_whole(status, self.headers, body)
