"""One request through its attempts: try, fail over, continue.

`Dispatch` receives an upstream's answer and drives the client; its base, `ResponseRelay`
(`penumbra.router.dispatch.relay`), buffers and relays the answer. An attempt that fails before the
client has seen anything is replaced by the next attempt of the plan, and a stream that breaks off
later is continued. Every method is a callback of the event loop and none waits.
"""

import math
from collections.abc import Callable
from typing import Protocol

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.attempt import Attempt, Client
from penumbra.router.dispatch.plan import Plan
from penumbra.router.dispatch.relay import ResponseRelay
from penumbra.router.dispatch.response_buffer import ResponseBuffer
from penumbra.router.dispatch.stream_resumer import StreamResumer, is_continuable
from penumbra.router.errors import error_body, upstream_error
from penumbra.router.mirror.token_tap import TokenTap
from penumbra.router.settings import LimitSettings
from penumbra.router.upstream.port import UpstreamRequest


class Timed(Protocol):
    """An object with a deadline, which the gateway's sweep watches."""

    deadline: float

    def expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""


class Dispatch(ResponseRelay):
    """One request through its attempts. The receiver of their answers.

    Args:
        plan: The order of the attempts.
        attempts: The attempts by variant name.
        request: The request that every attempt sends.
        client: The client that gets the answer.
        limits: Time limits.
        clock: Monotonic seconds.
    """

    __slots__ = ("_attempts", "_index", "_is_client_slow", "_resumer", "failover")

    def __init__(
        self,
        plan: Plan,
        attempts: dict[str, Attempt],
        request: UpstreamRequest,
        client: Client,
        limits: LimitSettings,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(plan, attempts[plan.attempts[0]], request, client, limits, clock)
        self._attempts = attempts
        self._index = 0
        self._resumer: StreamResumer | None = None
        self._is_client_slow = False
        self.failover: Outcome | None = None
        """How the first attempt failed, if another one answers."""

    def tap(self, tap: TokenTap) -> None:
        """Ask for token ids as well; the client side removes them from the answer."""
        self._tap = tap

    @property
    def slice_name(self) -> str:
        """The request's slice."""
        return self._plan.slice_name

    @property
    def is_continued(self) -> bool:
        """Whether the stream broke off and another variant continued it."""
        return self._resumer is not None

    @property
    def attempt(self) -> Attempt:
        """The attempt whose answer the client gets, or would get now."""
        return self._attempt

    def start(self) -> None:
        """Begin the attempt whose turn it is."""
        attempt = self._attempt = self._attempts[self._plan.attempts[self._index]]
        is_baseline = attempt.name == self._plan.baseline
        if not (is_baseline or attempt.gate.admits(self._plan.slice_name)):
            # The candidate was taken out of service after the request was decided.
            self._try_next(Outcome.ROLLED_BACK)
            return
        limits = self._limits
        seconds = limits.first_byte_seconds if is_baseline else limits.candidate_first_byte_seconds
        self.deadline = self._clock() + seconds
        tapped = self._tap.request if self._tap is not None else None
        self._stream = attempt.begin(tapped or self._request, self)

    # The client's side

    def abort(self) -> None:
        """Stop the engine: the client is gone."""
        self._attempt.record_end(self._plan.slice_name, Outcome.CLIENT_GONE)
        self._stop()

    def pause(self) -> None:
        """Pause the upstream: the client does not keep up."""
        self._is_client_slow = True
        self.deadline = self._clock() + self._limits.client_write_seconds
        stream = self._resumer or self._stream
        if stream is not None:
            stream.pause()

    def resume(self) -> None:
        """Resume the upstream: the client has caught up."""
        self._is_client_slow = False
        self._progressed_at = self._clock()
        self.deadline = self._progressed_at + self._limits.idle_seconds
        stream = self._resumer or self._stream
        if stream is not None:
            stream.resume()

    def expire(self, now: float) -> None:
        """Extend the deadline after progress, else end what hangs."""
        if self._is_client_slow:
            self.abort()
            self._client.break_off()
            return
        progressed_at = max(
            self._progressed_at, self._resumer.progressed_at if self._resumer else -math.inf
        )
        due = progressed_at + self._limits.idle_seconds
        if due > now:
            self.deadline = due
            return
        self._abort_attempt()
        if self._resumer is not None:
            self._resumer.abort()
        self.on_fail(Outcome.TIMEOUT, "no byte in time")

    def _stop(self) -> None:
        for stream in (self._stream, self._resumer):
            if stream is not None:
                stream.abort()
        self._stream = None

    # The upstream's side: failures (answers are in `ResponseRelay`)

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""
        del detail
        self._stream = None
        if not self._is_relaying:
            self._fail(outcome)
            return
        if self._resumer is None:
            self._attempt.record_end(self._plan.slice_name, outcome)
        if self._sent is not None and self._resumer is None:
            self._attempt.cells.count_failover(outcome)
            self._resume_stream(self._sent)
        else:
            self.give_up()

    def _fail(self, outcome: Outcome) -> None:
        """Go on with the next attempt, if any: the client has seen nothing of this one."""
        self._attempt.record_end(self._plan.slice_name, outcome)
        self._try_next(outcome)

    def _try_next(self, outcome: Outcome) -> None:
        following = self._plan.following(self._index, outcome)
        if following is None:
            self._client.send_error(upstream_error(outcome))
            return
        self._attempt.cells.count_failover(outcome)
        self.failover = self.failover or outcome
        self._index = following
        self._reset()
        self.start()

    def leave_candidate(self) -> bool:
        """Let the baseline answer, or continue the stream, of a candidate that was rolled back.

        Returns:
            False if the request stays where it is: it is over, or the baseline has it already, or
            the baseline cannot continue what the client has seen. A rollback breaks off no answer.
        """
        if self._stream is None:  # ended since `move` made its list
            return False
        if self._attempt.name == self._plan.baseline or self._resumer is not None:
            return False
        if not self._is_relaying:
            if self._plan.following(self._index, Outcome.ROLLED_BACK) is None:
                return False
            self._abort_attempt()
            self._fail(Outcome.ROLLED_BACK)
            return True
        sent = self._sent
        if sent is None or not is_continuable(self._request, b"".join(sent)):
            return False
        self._abort_attempt()
        self._attempt.record_end(self._plan.slice_name, Outcome.ROLLED_BACK)
        self._attempt.cells.count_failover(Outcome.ROLLED_BACK)
        self._resume_stream(sent)
        return True

    # A stream that broke off

    def _resume_stream(self, sent: list[bytes]) -> None:
        baseline = self._attempts[self._plan.baseline]
        self._buffer = ResponseBuffer()
        self._progressed_at = -math.inf
        self.deadline = self._clock() + self._limits.first_byte_seconds
        self._resumer = StreamResumer(self, baseline, self._request, b"".join(sent), self._clock)
        if self._is_client_slow:
            self._resumer.pause()
        self._resumer.start()

    def send_event(self, event: bytes) -> None:
        """Send an event of the continuation to the client."""
        self._client.send_piece(event)

    def finish_resumed(self) -> None:
        """End the answer: the continuation is complete."""
        self._client.finish()

    def give_up(self) -> None:
        """Send an error event and close: the stream cannot be completed."""
        if self._is_event_stream:
            message = "the answer broke off and could not be continued"
            self._client.send_piece(b"data: " + error_body(message, "upstream_died") + b"\n\n")
        self._client.break_off()
