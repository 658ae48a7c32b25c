"""Judged relay: decides whether an answer is one, and holds failures against the right build.

A candidate's failure is a `Suspect` until the baseline's answer to the same request says whose
fault it was; where the baseline gives none, the `Arbiter` judges.

Reading order: JudgedRelay._end_whole, _note_end, _settle_suspect.
"""

from abc import abstractmethod

from penumbra.monitoring.vocabulary import FAILURES, Outcome
from penumbra.router import sse
from penumbra.router.dispatch.answer_check import (
    body_fault,
    is_of_a_proxy,
    is_proper,
    is_success,
    whole_fault,
    whole_outcome,
)
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.attribution import Repeat, Suspect
from penumbra.router.dispatch.capabilities import Lack, read_lack
from penumbra.router.dispatch.relay import ResponseRelay
from penumbra.router.dispatch.stream_end import StreamEnd

_OK = 200
_FIRST_ERROR = 400
_NOT_FOUND = 404
_USAGE = b'"include_usage"'


class JudgedRelay(ResponseRelay):
    """A relay that counts how attempts end, and by whose fault.

    Args:
        plan: The order of the attempts.
        attempt: The first attempt.
        request: The request that every attempt sends.
        client: The client that gets the answer.
        shape: What the request asks for.
        services: Limits, clock, judge.
    """

    __slots__ = ()

    @property
    def whole_body(self) -> bytes:
        """The body of an answer that the client gets whole; empty if it is or was relayed."""
        return b"" if self._is_begun else self._buffer.data

    @property
    def is_event_stream(self) -> bool:
        """Whether the present answer is a stream of events."""
        return self._is_event_stream

    @property
    def has_data(self) -> bool:
        """Whether data of the answer has come, and not only its head and comments."""
        return not self._is_event_stream or self._is_relaying

    @property
    @abstractmethod
    def _has_other_build(self) -> bool:
        """Whether the plan has a candidate left that the baseline's place may go to."""

    @abstractmethod
    def _resume_stream(self, sent: list[bytes]) -> None:
        """Have the baseline continue a stream of which the client has `sent`."""

    # Answers

    def _begin_relaying(self, *, is_sound: bool) -> None:
        self.attempt.record.answered_at = self._clock()
        if self._is_begun:
            self._client.note_first_data()
        if not self._is_candidate:
            self._settle_suspect(self.status, is_proper=is_sound and is_success(self.status))

    def _end_whole(self, body: bytes) -> None:
        status, kind = self.status, self._shape.kind
        is_usual = status == _OK and kind.is_json and not (kind.is_stream or self._is_event_stream)
        if is_usual and body_fault(body) is None:
            if self._suspect is not None:
                self._settle_suspect(status, is_proper=True)
            if self._is_candidate:
                now = self._clock()
                self.attempt.record.add_whole(self._request.path, now - self._began_at, now)
            self.attempt.record_end(self.slice_name, Outcome.OK, self._admission)
            self._client.send_whole(status, self.headers, body)
        else:
            self._end_unusual_whole(status, body)

    def _end_unusual_whole(self, status: int, body: bytes) -> None:
        if self._tap is not None and self._tap.withdraws(status, body):
            self._void_admission()
            self._reset()
            self.start()
        elif self._is_candidate:
            self._end_candidate_whole(status, body)
        elif is_of_a_proxy(status, body):
            self._fail(Outcome.REFUSED)
        elif self._is_of_another_build(status) and self._has_other_build:
            self._hold(body)
            self._fail(Outcome.UNSUPPORTED)
        else:
            is_events = self._is_event_stream  # which ended before an event
            is_answer = not is_events and is_proper(status, body, self._shape.kind)
            if status // 100 == 2 and not is_answer:
                self.attempt.cells.count_broken_off()
            self._settle_suspect(status, is_proper=is_answer)
            self._pass_whole(whole_outcome(status), body)

    def _void_admission(self) -> None:
        """Give back the place of an attempt that is made once more."""
        if self._admission is not None and self.attempt.watch is not None:
            slice_name = self.slice_name
            self.attempt.watch.record_end(slice_name, Outcome.UNSUPPORTED, self._admission)
            self._admission = None

    def _end_candidate_whole(self, status: int, body: bytes) -> None:
        kind = self._shape.kind
        fault = whole_fault(status, body, kind, is_event_stream=self._is_event_stream)
        if fault is None:
            self._pass_whole(Outcome.OK, body)
        elif fault is Outcome.REJECTED and self._is_last:
            self._pass_whole(Outcome.CLIENT_ERROR, body)  # there is nothing to compare it with
        else:
            if fault is Outcome.REJECTED:
                self._hold(body)
            self._fail(Outcome.UNSUPPORTED if self._is_of_another_build(status) else fault)

    def _hold(self, body: bytes) -> None:
        """Keep a refusal for the client, should the next build give no answer."""
        self._held = self.attempt, self.status, self.headers, body
        self._client.count_repeat()

    def _is_of_another_build(self, status: int) -> bool:
        """Whether the answer says that another build gave the response that is gone on from."""
        return status == _NOT_FOUND and self._shape.goes_on

    def _pass_whole(self, outcome: Outcome, body: bytes) -> None:
        if self._is_candidate and outcome is Outcome.OK:
            now = self._clock()
            self.attempt.record.add_whole(self._request.path, now - self._began_at, now)
        self._record_end(outcome)
        self._client.send_whole(self.status, self.headers, body)

    def _finish_stream(self, end: StreamEnd) -> None:
        self.attempt.record.add_stream_end(self._request.path, self._clock())
        if end is StreamEnd.FAILED:
            self.attempt.cells.count_broken_off()
        if end is not StreamEnd.FAILED:
            self._record_end(Outcome.OK)
        elif self._is_candidate:
            # The client has the failure, so the baseline is not asked for this request.
            self._suspect = self._new_suspect(Outcome.SERVER_ERROR)
            self._let_arbiter_judge()
        else:
            self._record_end(Outcome.SERVER_ERROR)
        if end is StreamEnd.FINISHED:
            kept = self._kept_pieces
            if kept is not None and _USAGE in self._request.body:
                self._resume_stream(kept)  # adds the usage and the end
                return
            self._client.send_piece(sse.DONE)
        self._client.finish()

    # Limits

    def _patience_seconds(self, attempt: Attempt, now: float) -> float:
        limits, is_stream = self._limits, self._shape.kind.is_stream
        if not self._is_candidate:
            return limits.first_byte_seconds if is_stream else limits.whole_answer_seconds
        least = limits.candidate_first_byte_seconds
        if is_stream:
            return least
        return attempt.record.whole_limit(least, limits.whole_answer_seconds, now)

    def _lateness(self) -> Outcome:
        """A build that answers others is slow, one that answers none hangs."""
        is_awaited_whole = self._is_candidate and not (self.status or self._shape.kind.is_stream)
        if is_awaited_whole and self.attempt.record.answered_at >= self._began_at:
            return Outcome.OVERTIME
        return Outcome.TIMEOUT

    # Whose fault a failure was

    def _record_end(self, outcome: Outcome) -> None:
        if not self._is_candidate and outcome in FAILURES:
            self._services.arbiter.note_baseline_failure(outcome)
        self.attempt.record_end(self.slice_name, outcome, self._admission)

    def _note_end(self, outcome: Outcome, *, is_unreachable: bool = False) -> None:
        """Note a failed attempt: a candidate's is a suspect, all others are counted at once.

        Args:
            outcome: How it failed.
            is_unreachable: Whether nothing of the request was sent.
        """
        if not self._is_candidate or outcome not in FAILURES:
            self._record_end(outcome)
            if not self._is_candidate and outcome in FAILURES:
                self._settle_suspect(0, is_proper=False)
            return
        suspect = self._new_suspect(outcome)
        if self._plan.attempts[0] == self._plan.baseline:
            suspect.settle(Outcome.SHARED)  # it stood in for a baseline that gave no answer
            return
        self._suspect = suspect
        if is_unreachable:
            suspect.is_unreachable = True
            self._services.arbiter.judge(suspect)  # or the baseline's answer, if it comes sooner

    def _new_suspect(self, outcome: Outcome) -> Suspect:
        attempt = self.attempt
        attempt.note_failure(outcome, self._admission)
        suspect = Suspect(attempt, self.slice_name, outcome, self._admission)
        if outcome is Outcome.TIMEOUT and not (self.status or self._shape.kind.is_stream):
            suspect.patience_seconds = self._patience
        if self.status >= _FIRST_ERROR:
            suspect.lack = self._read_lack()
        return suspect

    def _read_lack(self) -> Lack | None:
        lack = read_lack(self._request.path, self.status, self._buffer.data)
        is_known = lack is not None and lack.kind == "route"
        has_answered = self.attempt.record.has_answered(self._request.path)
        return None if is_known and has_answered else lack

    def _settle_suspect(self, status: int, *, is_proper: bool) -> None:
        suspect, self._suspect = self._suspect, None
        if suspect is not None:
            now = self._clock()
            seconds = now - self._began_at
            suspect.settle_by(status, is_proper=is_proper, seconds=seconds, now=now)

    def _let_arbiter_judge(self) -> None:
        suspect, self._suspect = self._suspect, None
        if suspect is None:
            return
        again = None
        if not suspect.is_unreachable and self._request.budget.left > 0:
            again = Repeat(self._request, self._shape.kind)
        self._services.arbiter.judge(suspect, again)
