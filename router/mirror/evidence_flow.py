"""Whether evidence about each candidate flows, as one process sees it. Pure: time is passed in.

A gateway sees whether its comparator takes what it mirrors; a comparator sees whether what it is
given ends in pairs. Evidence about a candidate has *stopped* if the last `MOST_LACKING` requests
that were to be evidence all came to nothing, and for longer than usual: the candidate then answers
clients unobserved, and the control process ends its lease. The time is needed because a comparator
with a small budget compares one request of many, but goes on doing so: it is thrice the longest of
the last pauses between two that did come to something, from `GRACE_SECONDS` to `MOST_SECONDS`. A
spent budget refills: where that is why, it is `MOST_SECONDS`.

At a comparator each kind of request, by who answered it, counts for itself: answers of the
candidate that never become evidence are not made up for by those of the baseline. But a candidate
without a lease gives no answers that could show that they are compared again. So evidence of the
other kind forgives it after a while, which is twice as long each time. After `MOST_SECONDS` without
a request that came to nothing, what was is forgotten.

No traffic is not silence, and neither are requests of which no evidence was to come: prompts that
were compared before, routes that are never compared, clients that left.

Reading order: EvidenceFlow.lack, EvidenceFlow.come, EvidenceFlow.stopped.
"""

from collections import deque

from penumbra.monitoring.observations import Run
from penumbra.router.mirror.shed_reason import ShedReason

MOST_LACKING = 50
GRACE_SECONDS = 15.0
MOST_SECONDS = 300.0
PATIENCE_SECONDS = 5.0
_PAUSES = 8

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
    """The flow of one kind of evidence about one candidate."""

    __slots__ = (
        "came_at", "is_short", "lacked_at", "lacking", "patience", "pauses", "since",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lacking = 0
        """Requests that came to nothing since the last that did not."""
        self.since = 0.0
        """When the first of them did."""
        self.lacked_at = 0.0
        """When the last of them did."""
        self.is_short = False
        """Whether one of them was shed because the budget was spent."""
        self.came_at: float | None = None
        self.patience = PATIENCE_SECONDS
        """Time after the last of them after which evidence of the other kind forgives them."""
        self.pauses: deque[float] = deque(maxlen=_PAUSES)

    def come(self, now: float) -> None:
        self.lacking, self.patience, self.is_short = 0, PATIENCE_SECONDS, False
        if self.came_at is not None:
            self.pauses.append(now - self.came_at)
        self.came_at = now

    def lack(self, now: float, *, is_short: bool) -> None:
        if self.lacking == 0 or now - self.lacked_at > MOST_SECONDS:
            self.lacking, self.since = 0, now
        self.lacking += 1
        self.lacked_at = now
        self.is_short |= is_short

    def forgive(self, now: float) -> None:
        if self.lacking >= MOST_LACKING and now - self.lacked_at >= self.patience:
            self.lacking = 0
            self.patience = min(2 * self.patience, MOST_SECONDS)

    def has_stopped(self, now: float) -> bool:
        usual = 3.0 * max(self.pauses, default=0.0)
        grace = MOST_SECONDS if self.is_short else min(max(usual, GRACE_SECONDS), MOST_SECONDS)
        is_recent = now - self.lacked_at <= MOST_SECONDS
        # Up to the last of them: a kind of which no more requests come lacks nothing.
        is_long = self.lacked_at - self.since >= grace
        return self.lacking >= MOST_LACKING and is_long and is_recent


class EvidenceFlow:
    """Flow of the evidence about all candidates. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str], tuple[str, dict[str, _Flow]]] = {}
        """(model, candidate) -> its run, and kind -> flow."""

    def come(self, run: Run, now: float, kind: str = "") -> None:
        """Take note of evidence, or of a request on its way to be.

        Args:
            run: Its run.
            now: The time.
            kind: Who answered the request, where that is told apart.
        """
        self._flow(run, kind).come(now)
        for flow in self._flows[run.model, run.candidate][1].values():
            flow.forgive(now)

    def lack(self, run: Run, reason: ShedReason, now: float, kind: str = "") -> None:
        """Take note of a request that was shed."""
        if reason in LACKING:
            self._flow(run, kind).lack(now, is_short=reason is ShedReason.BUDGET)

    def stopped(self, now: float) -> dict[str, tuple[str, ...]]:
        """Model -> candidates whose evidence has stopped."""
        found: dict[str, tuple[str, ...]] = {}
        for (model, candidate), (_, flows) in self._flows.items():
            if any(flow.has_stopped(now) for flow in flows.values()):
                found[model] = (*found.get(model, ()), candidate)
        return found

    def _flow(self, run: Run, kind: str) -> _Flow:
        key = run.model, run.candidate
        known = self._flows.get(key)
        if known is None or known[0] != run.id:
            known = self._flows[key] = run.id, {}
        return known[1].setdefault(kind, _Flow())
