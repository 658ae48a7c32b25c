"""What gateways and comparators say to the control process besides which table they have.

Reports are taken one after another for each process, in a task of its own: whoever listens to a
link must go on hearing acknowledgements while a report is being made durable, for a rollback that
the report causes waits for them.

Reading order: LinkInbox.open, LinkInbox.heard.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from penumbra.deployments.gateways.feedback_relay import FeedbackRelay
from penumbra.deployments.gateways.link import Link
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.monitoring.observations import Report
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.messages import (
    Beat,
    Feedback,
    Found,
    LeaseGrant,
    LinkError,
    Probe,
    Renew,
    Stored,
    encode,
)

log = logging.getLogger(__name__)

Said = Renew | Beat | Report | Feedback | Found

_UNACKNOWLEDGED = 4
"""Reports of one process that may wait here; it is to send the next after the last was stored."""
_RETRY_SECONDS = 0.5
_PROBES_REMEMBERED = 16


@dataclass(slots=True)
class _Visit:
    """What the desk keeps of one connected process."""

    reports: deque[Report] = field(default_factory=deque)
    """Not durable yet, oldest first."""
    has_report: asyncio.Event = field(default_factory=asyncio.Event)
    probes: dict[int, float] = field(default_factory=dict)


class LinkInbox:
    """Hears gateways or comparators.

    Args:
        guardianship: Whom leases are counted by.
        now: Monotonic clock, seconds.
        is_for_comparators: Whether to ask for signs of life.
    """

    def __init__(
        self,
        liveness: GuardLiveness,
        now: Callable[[], float],
        *,
        is_for_comparators: bool = False,
    ) -> None:
        self.on_report: Callable[[Report], Awaitable[None]] = _refuse
        """Makes a report durable before it returns; raises if it cannot now."""
        self.snapshot = Snapshot(epoch=0, models={})
        """The newest routing table."""
        self._liveness = liveness
        self._now = now
        self._is_for_comparators = is_for_comparators
        self._visits: dict[Link, _Visit] = {}
        self.feedback = FeedbackRelay(lambda: self._visits)
        self._nonces = itertools.count(1)
        self._taking: set[asyncio.Future[None]] = set()

    def open(self, link: Link) -> asyncio.Task[None]:
        """A process has connected. `close` when it is gone, and cancel the task."""
        visit = self._visits[link] = _Visit()
        return asyncio.create_task(self._serve(link, visit))

    def close(self, link: Link) -> None:
        """A process is gone; what it sent and is not durable it will send again."""
        visit = self._visits.pop(link, None)
        self.feedback.gone(link)
        for report in visit.reports if visit else ():
            self._liveness.stored((link, report.process_start_id, report.seq))

    async def _serve(self, link: Link, visit: _Visit) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_reports(link, visit))
            if self._is_for_comparators:
                group.create_task(self._probe(link, visit))

    def heard(self, link: Link, message: Said) -> None:
        """A process said something.

        Raises:
            LinkError: It is not its turn to say that.
        """
        visit = self._visits[link]
        match message:
            case Renew(nonce=nonce) if not self._is_for_comparators:
                self._renew(link, nonce)
            case Beat(nonce=nonce) if self._is_for_comparators:
                asked_at = visit.probes.pop(nonce, None)
                if asked_at is not None:
                    self._liveness.beat(link.hello.host, asked_at)
            case Report():
                self._queue(link, visit, message)
            case Feedback():
                self.feedback.take(link, message)
            case Found():
                self.feedback.found(link, message)
            case _:
                raise LinkError(f"{type(message).__name__} was not asked for")

    def _renew(self, link: Link, nonce: int) -> None:
        seconds = self._liveness.grant(self.snapshot, link.hello.host, self._now())
        grant = LeaseGrant(nonce, seconds, self._liveness.lease_seconds)
        link.say(LeaseGrant, encode(grant))

    # Reports

    def _queue(self, link: Link, visit: _Visit, report: Report) -> None:
        if len(visit.reports) >= _UNACKNOWLEDGED:
            raise LinkError("more reports than may be unacknowledged")
        visit.reports.append(report)
        visit.has_report.set()
        self._liveness.arrived((link, report.process_start_id, report.seq), self._now())

    async def _take_reports(self, link: Link, visit: _Visit) -> None:
        while True:
            while not visit.reports:
                visit.has_report.clear()
                await visit.has_report.wait()
            report = visit.reports[0]
            if not await self._is_taken(report):
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            visit.reports.popleft()
            self._liveness.stored((link, report.process_start_id, report.seq))
            link.say(Stored, encode(Stored(report.process_start_id, report.seq)))

    async def _is_taken(self, report: Report) -> bool:
        # Not interrupted by the end of the connection: half a change would be left.
        taking = asyncio.ensure_future(self.on_report(report))
        self._taking.add(taking)
        taking.add_done_callback(self._taken)
        try:
            await asyncio.shield(taking)
        except Exception:
            # Whatever it is, the report must not be lost. Leases end while it waits.
            log.exception("report_not_stored", extra={"source": report.source, "seq": report.seq})
            return False
        return True

    def _taken(self, taking: "asyncio.Future[None]") -> None:
        self._taking.discard(taking)
        if not taking.cancelled():
            taking.exception()  # looked at, also if nobody waits for it any more

    # Signs of life

    async def _probe(self, link: Link, visit: _Visit) -> None:
        while True:
            nonce = next(self._nonces)
            visit.probes[nonce] = self._now()
            if len(visit.probes) > _PROBES_REMEMBERED:
                del visit.probes[next(iter(visit.probes))]
            link.say(Probe, encode(Probe(nonce)))
            await asyncio.sleep(self._liveness.period_seconds)


async def _refuse(report: Report) -> None:
    raise LinkError(f"nobody takes reports here (from {report.source})")
