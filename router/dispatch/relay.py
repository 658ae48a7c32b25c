"""An answer on its way from a variant to the client: held, judged, relayed. The byte path.

Until the client has seen anything the answer is held: a whole body until it is complete, a stream
until its first event is sound. From then on pieces are passed on as they come, never parsed, and
kept by reference so that a stream which breaks off can be continued. What becomes of an answer that
fails is for `penumbra.router.dispatch.dispatch` to say, which is the one kind of `ResponseRelay`
there is: one object, so that a token costs one call.
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

KEEP_LIMIT_BYTES = 4 * 1024 * 1024
"""A stream longer than this can no longer be continued."""


class ResponseRelay(ABC):
    """Takes one attempt's answer after the other, until one is the client's.

    Args:
        plan: What is tried.
        attempt: The variant that is tried first.
        request: What it is sent.
        client: Who gets the answer.
        limits: Time limits.
        clock: Monotonic seconds.
    """

    __slots__ = (
        "_attempt", "_client", "_clock", "_held", "_is_event_stream", "_kept", "_kept_bytes",
        "_limits", "_plan", "_progressed_at", "_relay", "_request", "_stream", "_tap", "deadline",
        "headers", "status",
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
        """Another attempt begins."""
        if self._tap is not None:
            self._tap.restart()
        self.status = 0
        self.headers: Headers = []
        self._held = ResponseBuffer()
        self._is_event_stream = False
        self._relay = False
        self._kept: list[bytes] | None = [] if self._request.path in KINDS else None
        self._kept_bytes = 0

    @property
    def whole_body(self) -> bytes:
        """The body of an answer that the client gets whole; empty if it is or was relayed."""
        return b"" if self._relay else self._held.data

    @abstractmethod
    def start(self) -> None:
        """Try the variant whose turn it is."""

    @abstractmethod
    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""

    @abstractmethod
    def _fail(self, outcome: Outcome) -> None:
        """Nothing of this attempt was seen by the client: go on with the next one, if any."""

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
        """See `Receiver`. The hot path: one call for each token of a stream."""
        self._progressed_at = self._clock()
        if (
            self._relay
            and not self._held.length
            and data.endswith(b"\n\n")
            and sse.ERROR_MARK not in data
        ):
            if self._kept is not None:
                self._keep(self._kept, data)
            self._client.send_piece(data)
            return
        self._on_unusual_body(data)

    def _keep(self, kept: list[bytes], data: bytes) -> None:
        kept.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > KEEP_LIMIT_BYTES:
            self._kept = None

    def _on_unusual_body(self, data: bytes) -> None:
        held = self._held
        ends_event = held.add(data)
        if not self._is_event_stream:
            if self._relay or held.is_over_limit:
                self._relay_held(held.length)
        elif (ends_event or held.is_over_limit) and (self._relay or self._admits(held.data)):
            self._relay_events(held)

    def _admits(self, held: bytes) -> bool:
        """Whether the stream may begin, now; a candidate's that is broken is given up."""
        if self._attempt.name != self._plan.baseline:
            fault = first_event_fault(held)
            if fault is not None:
                self._abort_attempt()
                self._fail(fault)
                return False
        return sse.first_event_is_sound(held) is not None or self._held.is_over_limit

    def _relay_events(self, held: ResponseBuffer) -> None:
        length = sse.complete_length(held.data)
        if self._relay and self._kept is not None and sse.has_error_event(held.data[:length]):
            self._abort_attempt()
            self.on_fail(Outcome.DIED, "an error event within the stream")
        elif length:
            self._relay_held(length)
        elif held.is_over_limit:
            self._abort_attempt()
            self.on_fail(Outcome.GARBAGE, "an event larger than the limit")

    def _relay_held(self, length: int) -> None:
        """Send the first `length` of the held bytes; the rest stays held."""
        if not self._relay:
            self._relay = True
            self._client.send_head(self.status, self.headers)
        piece = self._held.take(length)
        if piece:
            if self._kept is not None:
                self._keep(self._kept, piece)
            self._client.send_piece(piece)

    def on_end(self) -> None:
        """See `Receiver`."""
        self._stream = None
        if self._relay:
            self._end_relay()
        else:
            self._end_whole(self._held.data)

    def _end_relay(self) -> None:
        kept, held = self._kept, self._held
        if (
            self._is_event_stream
            and kept is not None
            and not sse.ends_with_done(b"".join([*kept[-4:], held.data]))
        ):
            self.on_fail(Outcome.DIED, "the stream ended without [DONE]")
            return
        if held.length:
            self._relay_held(held.length)
        self._attempt.ended(self._plan.slice_name, Outcome.OK)
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
        self._attempt.ended(self._plan.slice_name, whole_outcome(status))
        self._client.send_whole(status, self.headers, body)
