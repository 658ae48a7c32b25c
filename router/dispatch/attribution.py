"""Attribution of a candidate's failures: decides whether a failure was the candidate's own.

A failure is held against a candidate only if the baseline did better with the same request. Where
the baseline's answer to the same request is not known (it was not asked, or the client left), the
`Arbiter` compares with the baseline's traffic of the same seconds, and asks the baseline once.

Reading order: Suspect.settle_by, Arbiter.judge.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router import sse
from penumbra.router.dispatch.admissions import Admission
from penumbra.router.dispatch.answer_check import AnswerKind, is_proper, is_success
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.capabilities import Lack
from penumbra.router.dispatch.stream_end import end_of
from penumbra.router.upstream.calls import Answer, UpstreamError, fetch, get_request
from penumbra.router.upstream.port import Upstream, UpstreamRequest

log = logging.getLogger(__name__)

SAME_SECONDS = 2.0
"""Failures of both builds so close to each other are one outage."""
_GATHER_SECONDS = 0.1
_PROBE_SECONDS = 2.0
_REPEATED = b"x-penumbra-repeat: 1\r\n"
"""Tells an engine's own log that no client waits for the answer."""
_REPEAT_SECONDS = 120.0
_REPEAT_BYTES = 8 * 1024 * 1024
_END_BYTES = 16 * 1024
_MOST_WAITING = 10_000
_FIRST_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Repeat:
    """A request that may be asked again of the baseline, and the kind of its answer."""

    request: UpstreamRequest
    kind: AnswerKind


class Suspect:
    """An attempt at a candidate that failed, until it is known whose fault it was.

    Args:
        attempt: The candidate.
        slice_name: The request's slice.
        outcome: How the attempt failed.
        admission: Its place in the order of attempts.
    """

    __slots__ = ("admission", "attempt", "is_settled", "is_unreachable", "lack", "outcome",
                 "patience_seconds", "slice_name")  # fmt: skip

    def __init__(
        self,
        attempt: Attempt,
        slice_name: str,
        outcome: Outcome,
        admission: Admission | None,
    ) -> None:
        self.attempt = attempt
        self.slice_name = slice_name
        self.outcome = outcome
        self.admission = admission
        self.lack: Lack | None = None
        """What the candidate's refusal says that it lacks."""
        self.is_unreachable = False
        """Whether nothing of the request was sent: then it cannot have been the request's fault."""
        self.patience_seconds: float | None = None
        """The limit on a whole answer that the candidate exceeded."""
        self.is_settled = False

    def settle_by(self, status: int, *, is_proper: bool, seconds: float, now: float) -> None:
        """Settle it by the baseline's answer to the same request.

        Args:
            status: The status of the baseline's answer; 0: it gave none.
            is_proper: Whether it is an answer.
            seconds: The time that it took.
            now: Monotonic seconds.
        """
        if is_proper:
            is_own_pace = self.patience_seconds is not None and seconds > self.patience_seconds / 2
            if self.lack is not None:
                self.attempt.record.capabilities.note(self.lack, now)
            self.settle(Outcome.OVERTIME if is_own_pace else self.own_outcome)
        elif self.is_unreachable and 0 < status < _FIRST_SERVER_ERROR:
            self.settle(self.outcome)
        elif self.outcome is Outcome.REJECTED and 0 < status < _FIRST_SERVER_ERROR:
            self.settle(Outcome.CLIENT_ERROR)
        else:
            self.settle(Outcome.SHARED)

    @property
    def own_outcome(self) -> Outcome:
        """The outcome that it is counted with if it was the candidate's own doing."""
        return self.outcome if self.lack is None else Outcome.UNSUPPORTED

    def settle(self, outcome: Outcome) -> None:
        """Count the attempt with its final outcome; the first call counts."""
        if self.is_settled:
            return
        self.is_settled = True
        self.attempt.record_end(self.slice_name, outcome, self.admission)


class Arbiter:
    """Judge of the failures of one model's candidates that no answer of the baseline explains.

    A failure that the baseline shows in the same seconds is shared. Else the baseline is asked: for
    a sign of life where the candidate could not be reached, for an answer to the same request where
    that may have been the cause. One request is asked again at a time, off every client's way; the
    failures that were seen together with it share its verdict.

    Args:
        now: Monotonic seconds.
        gather_seconds: Time given to the baseline's own failures to show, before it is asked.
    """

    def __init__(self, now: Callable[[], float], gather_seconds: float = _GATHER_SECONDS) -> None:
        self._now = now
        self._gather_seconds = gather_seconds
        self._baseline: Upstream | None = None
        self._failed_at: dict[Outcome, float] = {}
        self._queues = (_Queue(self._answers_health), _Queue(self._answers_again))

    def appoint(self, baseline: Upstream) -> None:
        """Name the baseline to ask from now on."""
        self._baseline = baseline

    def note_baseline_failure(self, outcome: Outcome) -> None:
        """Note that the baseline failed."""
        self._failed_at[outcome] = self._now()

    def judge(self, suspect: Suspect, again: Repeat | None = None) -> None:
        """Settle a suspect soon.

        Args:
            suspect: The failed attempt.
            again: The request to ask the baseline; None: a sign of life is enough.
        """
        if suspect.is_settled:
            return
        queue = self._queues[again is not None]
        if self._baseline is None or len(queue.waiting) >= _MOST_WAITING:
            suspect.settle(Outcome.SHARED)
            return
        queue.waiting.append(_Case(suspect, self._now(), again))
        if queue.task is None:
            queue.task = asyncio.get_running_loop().create_task(self._run(queue))

    async def _run(self, queue: "_Queue") -> None:
        try:
            while queue.waiting:
                await asyncio.sleep(self._gather_seconds)
                cases, queue.waiting = queue.waiting, []
                does_better = await queue.ask(cases[0])
                for case in cases:
                    suspect = case.suspect
                    is_own = does_better and not self._failed_alike(suspect.outcome, case.failed_at)
                    suspect.settle(suspect.own_outcome if is_own else Outcome.SHARED)
        except Exception:
            log.exception("attribution_failed")
        finally:
            queue.task = None

    def _failed_alike(self, outcome: Outcome, at: float) -> bool:
        last = self._failed_at.get(outcome)
        return last is not None and abs(last - at) <= SAME_SECONDS

    async def _answers_health(self, case: "_Case") -> bool:
        del case
        if self._baseline is None:
            return False
        try:
            answer = await fetch(
                self._baseline, get_request(b"/health"), timeout_seconds=_PROBE_SECONDS
            )
        except UpstreamError:
            return False
        return answer.status < _FIRST_SERVER_ERROR

    async def _answers_again(self, case: "_Case") -> bool:
        if self._baseline is None or case.again is None:
            return False
        again = case.again
        headers = again.request.headers + _REPEATED
        request = UpstreamRequest(again.request.path, headers, again.request.body)
        request.budget.left = 1
        try:
            answer = await fetch(
                self._baseline, request, timeout_seconds=_REPEAT_SECONDS, limit_bytes=_REPEAT_BYTES
            )
        except UpstreamError:
            return False
        return is_good_answer(request.path, answer, again.kind)


@dataclass(frozen=True, slots=True)
class _Case:
    """One failure that waits for its verdict."""

    suspect: Suspect
    failed_at: float
    again: Repeat | None


class _Queue:
    """The cases that wait for one way of asking the baseline.

    Args:
        ask: Whether the baseline does better than the candidate did.
    """

    def __init__(self, ask: Callable[[_Case], Awaitable[bool]]) -> None:
        self.ask = ask
        self.waiting: list[_Case] = []
        self.task: asyncio.Task[None] | None = None


def is_good_answer(path: bytes, answer: Answer, kind: AnswerKind) -> bool:
    """Whether an answer that is complete, whole or a stream, answers its request."""
    if not is_success(answer.status):
        return False
    if not sse.is_named_by(answer.headers):
        return is_proper(answer.status, answer.body, kind)
    has_data = sse.first_event_is_sound(answer.body)
    end = end_of(path, answer.body[-_END_BYTES:])
    return bool(has_data) and end.is_complete and not sse.has_error_event(answer.body)
