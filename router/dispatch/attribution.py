"""Attribution of a candidate's failures: decides whether a failure was the candidate's own.

A failure is held against a candidate only if the baseline did better with the same request. Where
the baseline's answer to the same request is not known (it was not asked, or the client left), the
`Arbiter` compares with the baseline's traffic of the same seconds, and asks the baseline for a sign
of life once.

Reading order: Suspect.settle_by, Arbiter.judge.
"""

import asyncio
import logging
from collections.abc import Callable

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.admissions import Admission
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.capabilities import Lack
from penumbra.router.upstream.calls import UpstreamError, fetch, get_request
from penumbra.router.upstream.port import Upstream

log = logging.getLogger(__name__)

SAME_SECONDS = 2.0
"""Failures of both builds so close to each other are one outage."""
_GATHER_SECONDS = 0.1
"""Time given to the baseline's own failures to show, before it is asked."""
_PROBE_SECONDS = 2.0
_MOST_WAITING = 10_000
_FIRST_SERVER_ERROR = 500


class Suspect:
    """An attempt at a candidate that failed, until it is known whose fault it was.

    Args:
        attempt: The candidate.
        slice_name: The request's slice.
        outcome: How the attempt failed.
        admission: Its place in the order of attempts.
        lack: What the candidate's refusal says that it lacks.
    """

    __slots__ = ("admission", "attempt", "is_settled", "is_unreachable", "lack", "outcome",
                 "patience_seconds", "slice_name")  # fmt: skip

    def __init__(
        self,
        attempt: Attempt,
        slice_name: str,
        outcome: Outcome,
        admission: Admission | None,
        lack: Lack | None = None,
    ) -> None:
        self.attempt = attempt
        self.slice_name = slice_name
        self.outcome = outcome
        self.admission = admission
        self.lack = lack
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
            self.settle(Outcome.OVERTIME if is_own_pace else self._own(now))
        elif self.is_unreachable and 0 < status < _FIRST_SERVER_ERROR:
            self.settle(self.outcome)
        elif self.outcome is Outcome.REJECTED and 0 < status < _FIRST_SERVER_ERROR:
            self.settle(Outcome.CLIENT_ERROR)
        else:
            self.settle(Outcome.SHARED)

    def _own(self, now: float) -> Outcome:
        if self.lack is None:
            return self.outcome
        self.attempt.record.capabilities.note(self.lack, now)
        return Outcome.UNSUPPORTED

    def settle(self, outcome: Outcome) -> None:
        """Count the attempt with its final outcome; the first call counts."""
        if self.is_settled:
            return
        self.is_settled = True
        self.attempt.record_end(self.slice_name, outcome, self.admission)


class Arbiter:
    """Judge of the failures of one model's candidates that no answer of the baseline explains.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._baseline: Upstream | None = None
        self._failed_at: dict[Outcome, float] = {}
        self._waiting: list[tuple[Suspect, float]] = []
        self._task: asyncio.Task[None] | None = None

    def appoint(self, baseline: Upstream) -> None:
        """Name the baseline to ask from now on."""
        self._baseline = baseline

    def note_baseline_failure(self, outcome: Outcome) -> None:
        """Note that the baseline failed."""
        self._failed_at[outcome] = self._now()

    def judge(self, suspect: Suspect) -> None:
        """Settle a suspect soon, by what the baseline does in the same seconds."""
        if suspect.is_settled:
            return
        if self._baseline is None or len(self._waiting) >= _MOST_WAITING:
            suspect.settle(Outcome.SHARED)
            return
        self._waiting.append((suspect, self._now()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_GATHER_SECONDS)
                waiting, self._waiting = self._waiting, []
                is_alive = await self._baseline_lives()
                for suspect, failed_at in waiting:
                    is_shared = not is_alive or self._failed_alike(suspect.outcome, failed_at)
                    suspect.settle(Outcome.SHARED if is_shared else suspect.outcome)
        except Exception:
            log.exception("attribution_failed")
        finally:
            self._task = None

    def _failed_alike(self, outcome: Outcome, at: float) -> bool:
        last = self._failed_at.get(outcome)
        return last is not None and abs(last - at) <= SAME_SECONDS

    async def _baseline_lives(self) -> bool:
        if self._baseline is None:
            return False
        try:
            answer = await fetch(
                self._baseline, get_request(b"/health"), timeout_seconds=_PROBE_SECONDS
            )
        except UpstreamError:
            return False
        return answer.status < _FIRST_SERVER_ERROR
