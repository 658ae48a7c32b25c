"""Takes what gateways and comparators send besides acknowledgements: reports, feedback, beats.

The reports of each process are stored one after another, in a task of their own. Meanwhile the link
must go on taking acknowledgements, because a rollback that a report causes waits for them.

Reading order: LinkInbox.open, LinkInbox.handle.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from penumbra.deployments.errors import DeploymentsError, ReportRefused
from penumbra.deployments.gateways.feedback_relay import FeedbackRelay, refuse_feedback
from penumbra.deployments.gateways.link import Link
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.refused_reports import RefusedReports
from penumbra.deployments.gateways.report_rights import foreign_part
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.monitoring.log_limit import LogLimit
from penumbra.monitoring.observations import Report
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.messages import (
    Answers,
    Beat,
    Feedback,
    Found,
    LeaseGrant,
    LinkError,
    Locate,
    Probe,
    Renew,
    Stored,
    encode,
)
from penumbra.router.link.unreadable_report import UnreadableReport

log = logging.getLogger(__name__)

InboxMessage = Renew | Answers | Beat | Report | UnreadableReport | Feedback | Found | Locate

_UNACKNOWLEDGED = 4
"""Reports of one process that may wait here; it sends the next after the last was stored."""
_RETRY_SECONDS = 0.5
_PROBES_REMEMBERED = 16
_MOST_REFUSED = 3
"""Reports of a comparator in a row after whose refusal it counts as silent."""
_FOREIGN_FEEDBACK = "feedback: found a user's judgement, which a comparator may not report"


@dataclass(slots=True)
class _Connection:
    """State of one connected process."""

    reports: deque[Report] = field(default_factory=deque)
    """Not durable yet, oldest first."""
    has_report: asyncio.Event = field(default_factory=asyncio.Event)
    probes: dict[int, float] = field(default_factory=dict)
    """Nonce -> when the probe was sent; monotonic seconds."""
    refused: int = 0
    """Reports that were refused since the last that was stored."""


def _name_of(link: Link) -> tuple[str, str, int]:
    return link.hello.host, link.hello.gateway, link.hello.pid


def _no_table() -> Snapshot:
    return Snapshot(epoch=0, models={})


class LinkInbox:
    """Inbox of all gateways, or of all comparators.

    Args:
        liveness: Records the signs of life, and grants leases.
        now: Monotonic clock, seconds.
        take_report: Makes a report durable before it returns; raises `ReportRefused` if it can
            never be, and another error if it cannot now.
        take_feedback: Makes a user's judgement durable; see `FeedbackRelay`.
        newest_table: Returns the newest routing table; leases are granted for its models.
        is_for_comparators: Whether to probe for signs of life instead of granting leases.
    """

    def __init__(
        self,
        liveness: GuardLiveness,
        now: Callable[[], float],
        take_report: Callable[[Report], Awaitable[None]],
        *,
        take_feedback: Callable[[UserFeedback], Awaitable[None]] = refuse_feedback,
        newest_table: Callable[[], Snapshot] = _no_table,
        is_for_comparators: bool = False,
    ) -> None:
        self._liveness = liveness
        self._now = now
        self._newest_table = newest_table
        self._take_report = take_report
        self._is_for_comparators = is_for_comparators
        self.refused = RefusedReports(now)
        """Reports that were refused; other modules only read it."""
        self._connections: dict[Link, _Connection] = {}
        self._unstored = LogLimit(now)
        self._feedback = FeedbackRelay(lambda: self._connections, take_feedback)
        self._nonces = itertools.count(1)
        self._unanswered: dict[Link, Renew] = {}
        """Gateway -> its latest question for leases that could not be answered."""
        self._taking: set[asyncio.Future[None]] = set()

    def open(self, link: Link) -> asyncio.Task[None]:
        """Begin to serve a process that has connected.

        Returns:
            The task that stores its reports. When the process is gone, cancel it and call `close`.
        """
        connection = self._connections[link] = _Connection()
        self._liveness.welcome(_name_of(link))
        return asyncio.create_task(self._serve(link, connection))

    def close(self, link: Link) -> None:
        """Forget a process that is gone; it will send reports that are not durable again."""
        connection = self._connections.pop(link, None)
        self._unanswered.pop(link, None)
        name = _name_of(link)
        is_here = any(_name_of(other) == name for other in self._connections)
        self._liveness.forget(link, None if link.has_ended or is_here else name)
        self._feedback.forget(link)
        for report in connection.reports if connection else ():
            self._liveness.note_stored((link, report.process_start_id, report.seq))

    async def _serve(self, link: Link, connection: _Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store_reports(link, connection))
            if self._is_for_comparators:
                group.create_task(self._probe(link, connection))

    def handle(self, link: Link, message: InboxMessage) -> None:
        """Handle one message of a process.

        Raises:
            LinkError: The process may not send that message, or not now.
        """
        connection = self._connections[link]
        match message:
            case Renew(stopped=stopped) if not self._is_for_comparators:
                link.kills = message.kills
                self._note_stopped(link, None, stopped)
                self._renew(link, message)
            case Answers(counts=counts) if not self._is_for_comparators:
                link.answers = counts
            case Beat(nonce=nonce, stopped=stopped) if self._is_for_comparators:
                asked_at = connection.probes.pop(nonce, None)
                # One whose reports are all refused makes no evidence, however alive it is.
                if asked_at is not None and connection.refused < _MOST_REFUSED:
                    self._note_stopped(link, link.hello.host, stopped)
                    self._liveness.note_beat(link.hello.host, asked_at)
            case Report() | UnreadableReport():
                self._queue(link, connection, message)
            case Feedback() | Found():
                self._take_judgement(link, message)
            case Locate() if not self._is_for_comparators:
                self._feedback.locate(link, message)
            case _:
                raise LinkError(f"{type(message).__name__} was not asked for")

    def _take_judgement(self, link: Link, message: Feedback | Found) -> None:
        if self._is_for_comparators and isinstance(message, Feedback):
            self.refused.note(link.hello.gateway, message.nonce, _FOREIGN_FEEDBACK)
            self._feedback.refuse(link, message)
        else:
            self._feedback.handle(link, message)

    def answer_waiting(self) -> None:
        """Answer gateways that asked for leases when none could be granted."""
        waiting, self._unanswered = self._unanswered, {}
        for link, asked in waiting.items():
            self._renew(link, asked)

    def _renew(self, link: Link, asked: Renew) -> None:
        now = self._now()
        self._liveness.ask()
        if not self._liveness.may_grant(now):
            self._unanswered[link] = asked
            return
        host, table, is_by_candidate = link.hello.host, self._newest_table(), asked.is_by_candidate
        link.stopped = self._liveness.stopped(host, link)
        seconds = self._liveness.grant(table, host, now, link, is_by_candidate=is_by_candidate)
        if not self._liveness.is_settled(now) and not all(seconds.values()):
            return
        without = self._liveness.without(table, host, link) if is_by_candidate else {}
        grant = LeaseGrant(asked.nonce, seconds, self._liveness.lease_seconds, without)
        link.say(LeaseGrant, encode(grant))

    def _note_stopped(
        self, link: Link, host: str | None, stopped: dict[str, tuple[str, ...]]
    ) -> None:
        if not self._liveness.note_stopped(link, host, stopped, self._now()):
            return
        names = {model: list(candidates) for model, candidates in stopped.items()}
        name = link.hello.gateway
        if stopped:
            log.warning("evidence_stopped", extra={"gateway": name, "candidates": names})
        else:
            log.info("evidence_flows", extra={"gateway": name})

    # Reports

    def _queue(
        self, link: Link, connection: _Connection, report: Report | UnreadableReport
    ) -> None:
        if isinstance(report, UnreadableReport):
            self._refuse(link, report, report.detail)
            connection.refused += 1
            return
        foreign = foreign_part(report, is_comparator=self._is_for_comparators)
        if foreign is not None:
            self._refuse(link, report, foreign)
            return
        if len(connection.reports) >= _UNACKNOWLEDGED:
            raise LinkError("more reports than may be unacknowledged")
        connection.reports.append(report)
        connection.has_report.set()
        self._liveness.note_arrival((link, report.process_start_id, report.seq), self._now())

    async def _store_reports(self, link: Link, connection: _Connection) -> None:
        while True:
            while not connection.reports:
                connection.has_report.clear()
                await connection.has_report.wait()
            report = connection.reports[0]
            try:
                if not await self._try_to_store(report):
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                link.say(Stored, encode(Stored(report.process_start_id, report.seq)))
                connection.refused = 0
            except ReportRefused as refusal:
                self._refuse(link, report, refusal.message)
                connection.refused += 1
            connection.reports.popleft()
            self._liveness.note_stored((link, report.process_start_id, report.seq))

    def _refuse(self, link: Link, report: Report | UnreadableReport, detail: str) -> None:
        """Have the process forget a report: it can never be counted, and holds up all others."""
        self.refused.note(link.hello.gateway, report.seq, detail)
        link.say(Stored, encode(Stored(report.process_start_id, report.seq)))

    async def _try_to_store(self, report: Report) -> bool:
        # Not interrupted by the end of the connection: half a change would be left.
        taking = asyncio.ensure_future(self._take_report(report))
        self._taking.add(taking)
        taking.add_done_callback(self._finish_taking)
        try:
            await asyncio.shield(taking)
        except ReportRefused:
            raise
        except DeploymentsError as error:
            # The report must not be lost, whatever went wrong. Leases end while it waits.
            if (left_out := self._unstored.take(error.code)) is not None:
                log.error(
                    "report_not_stored",
                    extra={
                        "source": report.source,
                        "seq": report.seq,
                        "code": error.code,
                        "detail": error.message,
                        "repeated": left_out,
                    },
                )
            return False
        except Exception as error:
            if (left_out := self._unstored.take(type(error).__name__)) is not None:
                log.exception(
                    "report_not_stored",
                    extra={"source": report.source, "seq": report.seq, "repeated": left_out},
                )
            return False
        return True

    def _finish_taking(self, taking: "asyncio.Future[None]") -> None:
        self._taking.discard(taking)
        if not taking.cancelled():
            taking.exception()  # marks it as retrieved, in case no task awaits it any more

    # Signs of life

    async def _probe(self, link: Link, connection: _Connection) -> None:
        while True:
            nonce = next(self._nonces)
            connection.probes[nonce] = self._now()
            if len(connection.probes) > _PROBES_REMEMBERED:
                del connection.probes[next(iter(connection.probes))]
            link.say(Probe, encode(Probe(nonce)))
            await asyncio.sleep(self._liveness.period_seconds)
