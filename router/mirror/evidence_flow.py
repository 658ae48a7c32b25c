"""Whether evidence about each candidate flows, as one process sees it. Pure: time is passed in.

A gateway sees whether its comparator takes what it mirrors; a comparator sees whether what it is
given ends in pairs. Evidence about a candidate has *stopped* if the last `MOST_LACKING` requests
that were to be evidence all came to nothing, for `GRACE_SECONDS` at least: the candidate then
answers clients unobserved, and the control process ends its lease. Two are needed because a
comparator with a small budget compares one request of many, but goes on doing so.

No traffic is not silence, and neither are requests of which no evidence was to come: prompts that
were compared before, routes that are never compared, clients that left.

Reading order: EvidenceFlow.lack, EvidenceFlow.come, EvidenceFlow.stopped.
"""

from penumbra.monitoring.observations import Run
from penumbra.router.mirror.shed_reason import ShedReason

MOST_LACKING = 50
GRACE_SECONDS = 15.0

LACKING = frozenset(
    {
        ShedReason.NO_COMPARATOR,
        ShedReason.BUFFER_FULL,
        ShedReason.REFUSED,
        ShedReason.QUEUE_ITEMS,
        ShedReason.QUEUE_BYTES,
        ShedReason.BUSY,
        ShedReason.BUDGET,
        ShedReason.AGE,
        ShedReason.UNREADABLE,
        ShedReason.IDS_MISSING,
        ShedReason.BASELINE_SCORE,
        ShedReason.FAULT,
    }
)
"""Reasons of sheds that were to be evidence: nothing about the request itself forbade it."""


class _Flow:
    """The flow of one candidate's evidence."""

    __slots__ = ("lacking", "run", "since")

    def __init__(self, run: str) -> None:
        self.run = run
        self.lacking = 0
        """Requests that came to nothing since the last that did not."""
        self.since = 0.0
        """When the first of them did."""


class EvidenceFlow:
    """Flow of the evidence about all candidates."""

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str], _Flow] = {}

    def come(self, run: Run) -> None:
        """Take note of evidence, or of a request on its way to be."""
        self._flow(run).lacking = 0

    def lack(self, run: Run, reason: ShedReason, now: float) -> None:
        """Take note of a request that was shed; monotonic seconds."""
        if reason not in LACKING:
            return
        flow = self._flow(run)
        if flow.lacking == 0:
            flow.since = now
        flow.lacking += 1

    def stopped(self, now: float) -> dict[str, tuple[str, ...]]:
        """Model -> candidates whose evidence has stopped; monotonic seconds."""
        found: dict[str, tuple[str, ...]] = {}
        for (model, candidate), flow in self._flows.items():
            if flow.lacking >= MOST_LACKING and now - flow.since >= GRACE_SECONDS:
                found[model] = (*found.get(model, ()), candidate)
        return found

    def _flow(self, run: Run) -> _Flow:
        key = run.model, run.candidate
        flow = self._flows.get(key)
        if flow is None or flow.run != run.id:
            flow = self._flows[key] = _Flow(run.id)
        return flow
