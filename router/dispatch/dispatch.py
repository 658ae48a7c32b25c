"""One request through its attempts: try, fail over, continue.

`Dispatch` receives an upstream's answer and drives the client. Its bases relay the answer
(`penumbra.router.dispatch.relay`) and decide whether it is one and whose fault a failure was
(`penumbra.router.dispatch.judged_relay`). An attempt that fails before the client has seen anything
is replaced by the next attempt of the plan, and a stream that breaks off later is continued. Every
method is a callback of the event loop and none waits.

Reading order: Dispatch.start, on_fail, leave_candidate.
"""

import math

from penumbra.monitoring.vocabulary import FAILURES, Outcome
from penumbra.router.dispatch.attempt import Attempt, Client
from penumbra.router.dispatch.continued_answer import is_continuable
from penumbra.router.dispatch.judged_relay import JudgedRelay
from penumbra.router.dispatch.plan import Plan
from penumbra.router.dispatch.request_shape import RequestShape
from penumbra.router.dispatch.response_buffer import ResponseBuffer
from penumbra.router.dispatch.services import DispatchServices
from penumbra.router.dispatch.stream_end import end_of
from penumbra.router.dispatch.stream_resumer import StreamResumer
from penumbra.router.errors import error_body, upstream_error
from penumbra.router.mirror.token_tap import TokenTap
from penumbra.router.upstream.port import UpstreamRequest

_SENDS = 2
"""Servers that one request reaches, if it kills them."""
_OK = 200


class Dispatch(JudgedRelay):
    """One request through its attempts. The receiver of their answers.

    Args:
        plan: The order of the attempts.
        attempts: The attempts by variant name.
        request: The request that every attempt sends.
        client: The client that gets the answer.
        shape: What the request asks for.
        services: Limits, clock, judge.
    """

    __slots__ = ("_attempts", "_index", "_is_client_slow", "_resumer", "failover")

    def __init__(
        self,
        plan: Plan,
        attempts: dict[str, Attempt],
        request: UpstreamRequest,
        client: Client,
        shape: RequestShape,
        services: DispatchServices,
    ) -> None:
        super().__init__(plan, attempts[plan.attempts[0]], request, client, shape, services)
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
    def is_continued(self) -> bool:
        """Whether the stream broke off and another variant continued it."""
        return self._resumer is not None

    @property
    def _is_last(self) -> bool:
        return self._plan.following(self._index, Outcome.GARBAGE) is None

    @property
    def _has_other_build(self) -> bool:
        return self._plan.following(self._index, Outcome.UNSUPPORTED) is not None

    def start(self) -> None:
        """Begin the attempt whose turn it is."""
        plan, request = self._plan, self._request
        attempt = self.attempt = self._attempts[plan.attempts[self._index]]
        is_candidate = self._is_candidate = attempt.name != plan.baseline
        now = self._began_at = self._clock()
        self._admission = None
        if is_candidate:
            if not attempt.gate.admits(plan.slice_name):
                # The candidate was taken out of service after the request was decided.
                self._try_next(Outcome.ROLLED_BACK)
                return
            if attempt.record.capabilities.has_any and self._is_known_to_lack(attempt, now):
                attempt.record_end(plan.slice_name, Outcome.UNSUPPORTED)
                self._try_next(Outcome.UNSUPPORTED)
                return
            if attempt.watch is not None:
                self._admission = attempt.watch.admit(plan.slice_name)
        # The pool of a candidate repeats nothing by itself: the baseline answers instead.
        request.budget.kept = 1 if is_candidate and self._index == 0 else 0
        seconds = self._patience = self._patience_seconds(attempt, now)
        self.deadline = now + seconds
        tapped = self._tap.request if self._tap is not None else None
        self._stream = attempt.begin(tapped or request, self)

    def _is_known_to_lack(self, attempt: Attempt, now: float) -> bool:
        request, most_tokens = self._request, self._shape.most_tokens
        return attempt.record.capabilities.lacks(request.path, request.body, most_tokens, now)

    # The client's side

    def abort(self) -> None:
        """Stop the engine: the client is gone."""
        if self._resumer is None:
            self._record_end(Outcome.CLIENT_GONE)
        self._let_arbiter_judge()
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
        self._note_progress()
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
        resumed_at = self._resumer.progressed_at if self._resumer else -math.inf
        progressed_at = max(self._progressed_at, resumed_at)
        due = progressed_at + self._limits.idle_seconds
        if due > now:
            self.deadline = due
            return
        budget = self._request.budget
        budget.left = min(_SENDS, budget.left + 1)  # the server hangs, it was not killed
        self._abort_attempt()
        if self._resumer is not None:
            self._resumer.abort()
        self.on_fail(self._lateness(), "no data in time")

    def forgive(self, seconds: float) -> None:
        """Extend all limits: the process itself stood still for so long."""
        self.deadline += seconds
        self._progressed_at += seconds
        self._began_at += seconds

    def _stop(self) -> None:
        for stream in (self._stream, self._resumer):
            if stream is not None:
                stream.abort()
        self._stream = None
        self.close()

    # Failures

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""
        del detail
        stream, self._stream = self._stream, None
        if not self._is_begun:
            is_unreachable = False
            if stream is not None and outcome is Outcome.REFUSED:
                is_unreachable = not stream.was_sent
                if stream.was_reused and self._is_candidate:
                    # Its server may have been closing it: the gateway was too slow to notice.
                    outcome = Outcome.GATEWAY_LIMIT
            self._note_end(outcome, is_unreachable=is_unreachable)
            self._try_next(outcome)
            return
        if self._resumer is not None:
            self.give_up()
            return
        if self._is_event_stream and self._is_relaying:
            end = end_of(self._request.path, self.last_events)
            if end.is_complete:
                self._finish_stream(end)  # nothing of the answer is missing
                return
        self._note_end(outcome)
        kept = self._kept_pieces
        if kept is None:
            self.give_up()
            return
        self.attempt.cells.count_failover(outcome)
        self._resume_stream(kept)

    def _fail(self, outcome: Outcome) -> None:
        """Go on with the next attempt, if any: the client has seen nothing of this one."""
        self._note_end(outcome)
        self._try_next(outcome)

    def _try_next(self, outcome: Outcome) -> None:
        following = self._plan.following(self._index, outcome)
        if following is None or self._request.budget.left <= 0:
            self._let_arbiter_judge()
            self._send_last(outcome)
            return
        self.attempt.cells.count_failover(outcome)
        self.failover = self.failover or outcome
        self._index = following
        self._reset()
        self.start()

    def _send_last(self, outcome: Outcome) -> None:
        if self._held is None:
            self._client.send_error(upstream_error(outcome))
            return
        # The candidate's refusal is all there is.
        self.attempt, self.status, self.headers, body = self._held
        self._is_candidate = self.attempt.name != self._plan.baseline
        self._client.send_whole(self.status, self.headers, body)

    def leave_candidate(self) -> bool:
        """Let the baseline answer, or continue the stream, of a candidate that was rolled back.

        Returns:
            False if the request stays where it is: it is over, or the baseline has it already, or
            the baseline cannot continue what the client has seen. A rollback breaks off no answer.
        """
        has_ended = self._stream is None  # since `move` made its list
        if has_ended or not self._is_candidate or self._resumer is not None:
            return False
        if not self._is_begun:
            if self._plan.following(self._index, Outcome.ROLLED_BACK) is None:
                return False
            self._abort_attempt()
            self._fail(Outcome.ROLLED_BACK)
            return True
        kept = self._kept_pieces
        if kept is None or not is_continuable(self._request, b"".join(kept)):
            return False
        self._abort_attempt()
        self._record_end(Outcome.ROLLED_BACK)
        self.attempt.cells.count_failover(Outcome.ROLLED_BACK)
        self._resume_stream(kept)
        return True

    # A stream that broke off

    def _resume_stream(self, sent: list[bytes]) -> None:
        baseline = self._attempts[self._plan.baseline]
        self._buffer = ResponseBuffer()
        self._progressed_at = -math.inf
        self._request.budget.left, self._request.budget.kept = 1, 0
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
        self._settle_by_rest()
        self._client.finish()

    def _settle_by_rest(self) -> None:
        """Settle a broken stream by what the baseline made of its rest, if it was asked."""
        outcome = self._resumer.outcome if self._resumer is not None else None
        if outcome is Outcome.OK:
            self._settle_suspect(_OK, is_proper=True)
        elif outcome is not None and outcome in FAILURES:
            self._services.arbiter.note_baseline_failure(outcome)
            self._settle_suspect(0, is_proper=False)
        self._let_arbiter_judge()

    def give_up(self) -> None:
        """Send an error event and close: the stream cannot be completed."""
        self._settle_by_rest()
        if self._is_event_stream:
            message = "the answer broke off and could not be continued"
            self._client.send_piece(b"data: " + error_body(message, "upstream_died") + b"\n\n")
        self._client.break_off()
