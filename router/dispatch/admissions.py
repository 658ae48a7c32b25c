"""Attempts at one candidate in the order of their admission, as the failure process bets on them.

Attempts end in another order than they begin: a failure comes at once, a good answer may take a
minute. Counted as they end, a fresh process sees failures first and takes sound builds out. So bets
follow the order of admission. An attempt that is still running counts as good until it ends: later
failures are judged at once, and a dead build trips as fast as if nothing else were running.

One bet is made for each incident: attempts that were under way when the first failure of an
incident was seen, and failed within `INCIDENT_SECONDS` of it, failed by one cause.

Pure. Reading order: AdmissionLedger.admit, note_failure, settle.
"""

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum

from penumbra.monitoring.stats.failure import FailureProcess

LONGEST_SECONDS = 60.0
"""An attempt that runs longer is counted as good and waited for no more; if it fails after that,
its failure is a bet of its own."""
MOST_WAITING = 10_000
"""The same for the oldest attempts beyond so many."""
INCIDENT_SECONDS = 1.0
"""Time from the first failure of an incident in which its other failures are seen."""


class Verdict(Enum):
    """The meaning of an attempt for its candidate."""

    RUNNING = "running"
    GOOD = "good"
    FAILED = "failed"
    VOID = "void"
    """It says nothing of the candidate."""
    OVERDUE = "overdue"
    """It was counted as good while it ran on."""


class _Incident:
    """The failures that had one cause."""

    __slots__ = ("began_at", "has_bet", "next_number")

    def __init__(self, began_at: float, next_number: int) -> None:
        self.began_at = began_at
        self.next_number = next_number
        """Number of the first attempt that was admitted after it was seen."""
        self.has_bet = False


class Admission:
    """One attempt's place in the order."""

    __slots__ = ("admitted_at", "incident", "number", "slice_name", "verdict")

    def __init__(self, slice_name: str, admitted_at: float, number: int) -> None:
        self.slice_name = slice_name
        self.admitted_at = admitted_at
        self.number = number
        self.verdict = Verdict.RUNNING
        self.incident: _Incident | None = None


class AdmissionLedger:
    """The attempts at one candidate in one run.

    Args:
        process: Bets on them; None: nothing trips.
        release: (slice, is failure), called in the order of admission for each attempt that counts.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        process: FailureProcess | None,
        release: Callable[[str, bool], None],
        now: Callable[[], float],
    ) -> None:
        self._process = process
        self._release = release
        self._now = now
        self._waiting: deque[Admission] = deque()
        self._admitted = 0
        self._incident: _Incident | None = None

    def admit(self, slice_name: str) -> Admission:
        """Give an attempt that begins its place."""
        now = self._now()
        admission = Admission(slice_name, now, self._admitted)
        self._admitted += 1
        self._waiting.append(admission)
        self._let_go_of_overdue(now)
        return admission

    def note_failure(self, admission: Admission) -> None:
        """Note that an attempt has failed, before it is known whose fault it was."""
        now, incident = self._now(), self._incident
        is_new = (
            incident is None
            or admission.number >= incident.next_number
            or now - incident.began_at > INCIDENT_SECONDS
        )
        if is_new:
            incident = self._incident = _Incident(now, self._admitted)
        admission.incident = incident

    def settle(self, admission: Admission, verdict: Verdict) -> bool:
        """Record what an attempt says of the candidate; returns whether the process trips."""
        was_overdue = admission.verdict is Verdict.OVERDUE
        if verdict is Verdict.FAILED:
            incident = admission.incident
            if incident is not None and incident.has_bet:
                verdict = Verdict.VOID
            elif incident is not None:
                incident.has_bet = True
        admission.verdict = verdict
        if was_overdue:
            if verdict is not Verdict.FAILED:
                return False
            self._waiting.append(admission)
        has_tripped = self._count_settled()
        if has_tripped or verdict is not Verdict.FAILED or self._process is None:
            return has_tripped
        return self._process.would_trip(self._passes_before_failures())

    def _let_go_of_overdue(self, now: float) -> None:
        waiting = self._waiting
        while waiting and (
            len(waiting) > MOST_WAITING or now - waiting[0].admitted_at > LONGEST_SECONDS
        ):
            if waiting[0].verdict is Verdict.RUNNING:
                waiting[0].verdict = Verdict.OVERDUE
            self._count(waiting.popleft())

    def _count_settled(self) -> bool:
        has_tripped = False
        waiting = self._waiting
        while waiting and waiting[0].verdict is not Verdict.RUNNING:
            has_tripped = self._count(waiting.popleft()) or has_tripped
        return has_tripped

    def _count(self, admission: Admission) -> bool:
        if admission.verdict is Verdict.VOID:
            return False
        is_failure = admission.verdict is Verdict.FAILED
        self._release(admission.slice_name, is_failure)
        return self._process is not None and self._process.observe(is_failure)

    def _passes_before_failures(self) -> Iterator[int]:
        passes = 0
        for admission in self._waiting:
            if admission.verdict is Verdict.FAILED:
                yield passes
                passes = 0
            elif admission.verdict is not Verdict.VOID:
                passes += 1
