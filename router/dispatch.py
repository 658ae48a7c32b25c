"""One request through its attempts: hold, relay, fail over, continue.

`Dispatch` receives an upstream's answer and drives the client. Until the client has seen anything
the answer is held: a whole body until it is complete, a stream until its first event is sound; what
fails before that is replaced by the next attempt of the plan. From then on pieces are passed on as
they come, never parsed, and kept by reference so that a stream which breaks off can be continued.

Nothing here waits: every method is a callback of the event loop.
"""

import math
from collections.abc import Callable

from monitoring.vocabulary import Outcome
from router import sse
from router.attempt import Attempt, Client
from router.continuation import KINDS
from router.errors import (
    GatewayError,
    UpstreamGarbage,
    UpstreamTimeout,
    UpstreamUnavailable,
    error_body,
)
from router.plan import Plan
from router.ports import Headers, Stream, UpstreamRequest
from router.resumption import Resumption, is_continuable
from router.settings import LimitSettings
from router.tap import Tap

HOLD_LIMIT_BYTES = 8 * 1024 * 1024
"""A whole body above this is passed on as it comes, and can no longer be replaced."""
KEEP_LIMIT_BYTES = 4 * 1024 * 1024
"""A stream longer than this can no longer be continued."""
_PROXY_STATUSES = frozenset({502, 503})
"""What a proxy says when it could not hand the request over; after a 504 the engine may have it."""


class Dispatch:
    """Drives one request. The receiver of its attempts' answers.

    Args:
        plan: What to try.
        attempts: The variants by name.
        request: What they are sent.
        client: Who gets the answer.
        limits: Time limits.
        clock: Monotonic seconds.
    """

    __slots__ = (
        "_attempt", "_attempts", "_client", "_clock", "_held", "_held_bytes", "_index",
        "_is_client_slow", "_is_event_stream", "_kept", "_kept_bytes", "_limits", "_plan",
        "_progressed_at", "_relay", "_request", "_resumption", "_stream", "_tap", "deadline",
        "failover", "headers", "status",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        attempts: dict[str, Attempt],
        request: UpstreamRequest,
        client: Client,
        limits: LimitSettings,
        clock: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._attempts = attempts
        self._request = request
        self._client = client
        self._limits = limits
        self._clock = clock
        self._index = 0
        self._attempt: Attempt = attempts[plan.attempts[0]]
        self._stream: Stream | None = None
        self._resumption: Resumption | None = None
        self.failover: Outcome | None = None
        """How the first attempt failed, if another one answers."""
        self.deadline = math.inf
        """When `expire` is due, unless there was progress; monotonic seconds."""
        self._progressed_at = -math.inf
        self._is_client_slow = False
        self._tap: Tap | None = None
        self._reset()

    def tap(self, tap: Tap) -> None:
        """Ask for token ids as well; the client takes them out of what it gets."""
        self._tap = tap

    def _reset(self) -> None:
        if self._tap is not None:
            self._tap.restart()
        self.status = 0
        self.headers: Headers = []
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_event_stream = False
        self._relay = False
        self._kept: list[bytes] | None = [] if self._request.path in KINDS else None
        self._kept_bytes = 0

    @property
    def slice_name(self) -> str:
        """The request's slice."""
        return self._plan.slice_name

    @property
    def is_continued(self) -> bool:
        """Whether the stream broke off and another variant continued it."""
        return self._resumption is not None

    @property
    def attempt(self) -> Attempt:
        """The variant whose answer the client gets, or would get now."""
        return self._attempt

    def start(self) -> None:
        """Try the variant whose turn it is."""
        attempt = self._attempt = self._attempts[self._plan.attempts[self._index]]
        is_baseline = attempt.name == self._plan.baseline
        if not (is_baseline or attempt.gate.admits(self._plan.slice_name)):
            # Taken out of service since the request was decided.
            self._pass_over(Outcome.ROLLED_BACK)
            return
        limits = self._limits
        seconds = limits.first_byte_seconds if is_baseline else limits.candidate_first_byte_seconds
        self.deadline = self._clock() + seconds
        tapped = self._tap.request if self._tap is not None else None
        self._stream = attempt.begin(tapped or self._request, self)

    # The client's side

    def abort(self) -> None:
        """The client is gone: stop the engine."""
        self._attempt.ended(self._plan.slice_name, Outcome.CLIENT_GONE)
        self._stop()

    def pause(self) -> None:
        """The client does not keep up."""
        self._is_client_slow = True
        self.deadline = self._clock() + self._limits.client_write_seconds
        stream = self._resumption or self._stream
        if stream is not None:
            stream.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self._is_client_slow = False
        self._progressed_at = self._clock()
        self.deadline = self._progressed_at + self._limits.idle_seconds
        stream = self._resumption or self._stream
        if stream is not None:
            stream.resume()

    def expire(self, now: float) -> None:
        """The deadline has passed: extend it after progress, else end what hangs."""
        if self._is_client_slow:
            self.abort()
            self._client.break_off()
            return
        progressed_at = max(
            self._progressed_at, self._resumption.progressed_at if self._resumption else -math.inf
        )
        due = progressed_at + self._limits.idle_seconds
        if due > now:
            self.deadline = due
            return
        self._abort_attempt()
        if self._resumption is not None:
            self._resumption.abort()
        self.on_fail(Outcome.TIMEOUT, "no byte in time")

    def _stop(self) -> None:
        for stream in (self._stream, self._resumption):
            if stream is not None:
                stream.abort()
        self._stream = None

    # The upstream's side

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
        if self._relay and not self._held and data.endswith(b"\n\n") and sse.ERROR_MARK not in data:
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
        tail = self._held[-1][-3:] if self._held else b""
        self._held.append(data)
        self._held_bytes += len(data)
        if not self._is_event_stream:
            if self._relay or self._held_bytes > HOLD_LIMIT_BYTES:
                self._relay_held(self._held_bytes)
            return
        if not sse.complete_length(tail + data) and self._held_bytes <= HOLD_LIMIT_BYTES:
            return  # no event ends here: nothing to join, nothing to look at
        held = b"".join(self._held)
        self._held = [held]
        if not self._relay and not self._admit_first_event(held):
            return
        length = sse.complete_length(held)
        if self._relay and self._kept is not None and sse.has_error_event(held[:length]):
            self._abort_attempt()
            self.on_fail(Outcome.DIED, "an error event within the stream")
        elif length:
            self._relay_held(length)
        elif self._held_bytes > HOLD_LIMIT_BYTES:
            self._abort_attempt()
            self.on_fail(Outcome.GARBAGE, "an event larger than the limit")

    def _admit_first_event(self, held: bytes) -> bool:
        is_sound = sse.first_event_is_sound(held)
        if is_sound is False and self._attempt.name != self._plan.baseline:
            self._abort_attempt()
            has_error = sse.has_error_event(held)
            self._fail(Outcome.SERVER_ERROR if has_error else Outcome.GARBAGE)
            return False
        return is_sound is not None or self._held_bytes > HOLD_LIMIT_BYTES

    def _relay_held(self, length: int) -> None:
        """Send the first `length` of the held bytes; the rest stays held."""
        if not self._relay:
            self._relay = True
            self._client.send_head(self.status, self.headers)
        held = b"".join(self._held)
        piece, rest = held[:length], held[length:]
        self._held = [rest] if rest else []
        self._held_bytes = len(rest)
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
            self._end_whole(b"".join(self._held))

    def _end_relay(self) -> None:
        kept = self._kept
        if self._is_event_stream and kept is not None and not _is_done(kept, self._held):
            self.on_fail(Outcome.DIED, "the stream ended without [DONE]")
            return
        if self._held:
            self._relay_held(self._held_bytes)
        self._attempt.ended(self._plan.slice_name, Outcome.OK)
        self._client.finish()

    def _end_whole(self, body: bytes) -> None:
        is_baseline = self._attempt.name == self._plan.baseline
        status = self.status
        if self._tap is not None and self._tap.withdraws(status, body):
            self._reset()
            self.start()
            return
        if status >= 400 and not sse.is_engine_error(body):
            # Written by a proxy in between or by a server that lacks the route, not by the engine.
            if not is_baseline:
                self._fail(Outcome.GARBAGE)
                return
            if status in _PROXY_STATUSES:
                self._fail(Outcome.REFUSED)
                return
        if self._is_event_stream and not is_baseline:  # ended before a sound event
            self._fail(Outcome.GARBAGE)
            return
        self._attempt.ended(self._plan.slice_name, _whole_outcome(status))
        self._client.send_whole(status, self.headers, body)

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""
        del detail
        self._stream = None
        if not self._relay:
            self._fail(outcome)
            return
        if self._resumption is None:
            self._attempt.ended(self._plan.slice_name, outcome)
        if self._kept is not None and self._resumption is None:
            self._attempt.cells.count_failover(outcome)
            self._resume_stream(self._kept)
        else:
            self.give_up()

    def _abort_attempt(self) -> None:
        if self._stream is not None:
            self._stream.abort()
            self._stream = None

    def _fail(self, outcome: Outcome) -> None:
        """Nothing of this attempt was seen by the client: go on with the next one, if any."""
        self._attempt.ended(self._plan.slice_name, outcome)
        self._pass_over(outcome)

    def _pass_over(self, outcome: Outcome) -> None:
        following = self._plan.following(self._index, outcome)
        if following is None:
            self._client.send_error(_error_of(outcome))
            return
        self._attempt.cells.count_failover(outcome)
        self.failover = self.failover or outcome
        self._index = following
        self._reset()
        self.start()

    def leave_candidate(self) -> bool:
        """The candidate was rolled back: let the baseline answer, or go on with its stream.

        Returns:
            False if the request stays where it is: it is over, or the baseline has it already, or
            could not continue what the client has seen. No answer is broken off for a rollback.
        """
        if self._stream is None:  # over meanwhile: whoever asks works through a list
            return False
        if self._attempt.name == self._plan.baseline or self._resumption is not None:
            return False
        if not self._relay:
            if self._plan.following(self._index, Outcome.ROLLED_BACK) is None:
                return False
            self._abort_attempt()
            self._fail(Outcome.ROLLED_BACK)
            return True
        kept = self._kept
        if kept is None or not is_continuable(self._request, b"".join(kept)):
            return False
        self._abort_attempt()
        self._attempt.ended(self._plan.slice_name, Outcome.ROLLED_BACK)
        self._attempt.cells.count_failover(Outcome.ROLLED_BACK)
        self._resume_stream(kept)
        return True

    # A stream that broke off

    def _resume_stream(self, kept: list[bytes]) -> None:
        baseline = self._attempts[self._plan.baseline]
        self._held = []
        self._progressed_at = -math.inf
        self.deadline = self._clock() + self._limits.first_byte_seconds
        self._resumption = Resumption(self, baseline, self._request, b"".join(kept), self._clock)
        if self._is_client_slow:
            self._resumption.pause()
        self._resumption.start()

    def send_event(self, event: bytes) -> None:
        """An event of the continuation."""
        self._client.send_piece(event)

    def finish_resumed(self) -> None:
        """The continuation is complete."""
        self._client.finish()

    def give_up(self) -> None:
        """The stream cannot be completed: say so in it, and close."""
        if self._is_event_stream:
            message = "the answer broke off and could not be continued"
            self._client.send_piece(b"data: " + error_body(message, "upstream_died") + b"\n\n")
        self._client.break_off()


def _is_done(kept: list[bytes], held: list[bytes]) -> bool:
    tail = list(sse.payloads(b"".join([*kept[-4:], *held])))
    return bool(tail) and tail[-1] == b"[DONE]"


def _whole_outcome(status: int) -> Outcome:
    if status < 400:
        return Outcome.OK
    return Outcome.CLIENT_ERROR if status < 500 else Outcome.SERVER_ERROR


def _error_of(outcome: Outcome) -> GatewayError:
    if outcome is Outcome.TIMEOUT:
        return UpstreamTimeout("the model did not begin its answer in time")
    if outcome in (Outcome.REFUSED, Outcome.ROLLED_BACK):
        return UpstreamUnavailable("no build of this model can be reached now; try again")
    return UpstreamGarbage(f"the model's answer cannot be used ({outcome.value})")
