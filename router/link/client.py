"""Client of the link to the control process, in a gateway or a comparator.

Newer routing tables come in; observations, and questions for the lease, go out. While the link is
down the gateway serves on with its last table, however long that lasts; only its leases end. When
the link is back the newest table arrives at once, and what is not acknowledged is sent again.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode

from penumbra.monitoring.answers import MOST_COUNTS, AnswerCount
from penumbra.router.bounds import LINK_BYTES
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.backoff import Backoff
from penumbra.router.link.control_addresses import ControlAddresses
from penumbra.router.link.duties import Duties
from penumbra.router.link.feedback import FeedbackSubmitter
from penumbra.router.link.lease import Lease
from penumbra.router.link.link_tls import LinkTls
from penumbra.router.link.messages import (
    VERSION,
    Answers,
    Beat,
    EpochApplied,
    Feedback,
    FeedbackDone,
    Found,
    Hello,
    LeaseGrant,
    LinkError,
    Locate,
    Located,
    Probe,
    Push,
    Seek,
    Stored,
    UnknownMessage,
    encode,
    from_control,
)
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.link.table_identity import store_text
from penumbra.router.link.table_in_force import TableInForce
from penumbra.router.link.turned_away import is_refusal, leader_in
from penumbra.router.link.unknown_messages import UnknownMessages
from penumbra.router.settings import ClientTlsSettings

log = logging.getLogger(__name__)

_ANSWERS_SECONDS = 1.0
"""Interval between two messages about the answers of the last minute."""


class ControlLink:
    """Keeps one gateway process, or a comparator, connected with the control process.

    Args:
        url: Base URL of the control process (http, https, ws or wss), or of all of one store.
        token: The gateways' bearer token.
        process_id: Name of this process.
        on_snapshot: Puts a table into force; when it returns, every further request is decided by
            it. May raise: then the last table stays and the control process is told why.
        backoff: Timing.
        duties: The other users of the link.
        tls: Files for addresses of https or wss.
    """

    def __init__(  # noqa: PLR0913 - what a process tells its link
        self,
        url: str | tuple[str, ...],
        token: str,
        process_id: str,
        on_snapshot: Callable[[Snapshot], None],
        backoff: Backoff | None = None,
        duties: Duties | None = None,
        tls: ClientTlsSettings | None = None,
    ) -> None:
        self._duties = duties or Duties()
        self._tls = LinkTls(tls or ClientTlsSettings())
        urls = (url,) if isinstance(url, str) else url
        self._addresses = ControlAddresses(urls, self._duties.path)
        self._token = token
        self._process_id = process_id
        self._in_force = TableInForce(on_snapshot)
        self._backoff = backoff or Backoff()
        self._must_renew = asyncio.Event()
        self._is_current = asyncio.Event()
        """Set while the newest table that came over this connection is in force."""
        self._was_acknowledged = asyncio.Event()
        self._failures = 0
        self.connected_since: float | None = None
        """Seconds by the backoff's clock; None while the link is down."""

    def take_token(self, token: str) -> bool:
        """Show another bearer token from the next connection on; returns whether it is another."""
        is_other = token != self._token
        self._token = token
        return is_other

    @property
    def last_epoch(self) -> int:
        """Newest epoch that was put into force through the link; 0 before the first."""
        return self._in_force.name.epoch

    @property
    def is_connected(self) -> bool:
        """Whether the link is up."""
        return self.connected_since is not None

    async def run(self) -> None:
        """Hold the link until cancelled, connecting again whenever it breaks."""
        while True:
            leader = ""
            try:
                await self._hold()
                self._report("closed by the control process", is_refusal=False)
            except (OSError, TimeoutError, WebSocketException, LinkError) as error:
                leader = leader_in(error)
                self._report(f"{type(error).__name__}: {error}", is_refusal=is_refusal(error))
            finally:
                self.connected_since = None
            if self._addresses.turn(leader):
                await self._backoff.sleep(self._backoff.retry_seconds(self._failures))
                self._failures += 1

    async def tell_the_rest(self, seconds: float) -> None:
        """Wait until all observations are acknowledged, at most so long, while the link is up."""
        outbox = self._duties.outbox
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while outbox is not None and not outbox.is_empty and self.is_connected:
                    self._was_acknowledged.clear()
                    await self._was_acknowledged.wait()

    async def _hold(self) -> None:
        address = self._addresses.link
        async with connect(
            address,
            ssl=await self._tls.context() if address.startswith("wss:") else None,
            additional_headers={"authorization": f"Bearer {self._token}"},
            open_timeout=self._backoff.open_seconds,
            ping_interval=self._backoff.ping_seconds,
            ping_timeout=self._backoff.ping_seconds,
            # A peer that did not answer a ping will not answer a close either.
            close_timeout=self._backoff.ping_seconds,
            max_size=LINK_BYTES,
            compression=None,
            proxy=None,
        ) as socket:
            self._is_current.clear()
            await socket.send(encode(self._hello()))
            senders = [
                asyncio.create_task(_run(sender, socket)) for sender in self._senders(socket)
            ]
            try:
                await self._follow(socket)
            except asyncio.CancelledError:
                # This process ends in order, and the control process need not wait for it.
                await socket.close(CloseCode.GOING_AWAY)
                raise
            finally:
                for sender in senders:
                    sender.cancel()
                await asyncio.gather(*senders, return_exceptions=True)

    def _hello(self) -> Hello:
        table = self._in_force.name
        return Hello(
            self._process_id,
            os.getpid(),
            store_text(table.store, table.generation),
            table.epoch,
            self._duties.machine,
            self._duties.metrics,
            VERSION,
            table.generation,
            table.digest,
            self._in_force.restrictions,
            self._duties.processes,
            self._duties.needs_keys,
        )

    def _senders(self, socket: ClientConnection) -> list[Coroutine[Any, Any, None]]:
        senders = []
        if self._duties.outbox is not None:
            senders.append(self._send_reports(socket, self._duties.outbox))
        if self._duties.lease is not None:
            senders.append(self._renew(socket, self._duties.lease))
        if self._duties.answers is not None:
            senders.append(self._send_answers(socket, self._duties.answers))
        if self._duties.feedback is not None:
            senders.append(self._send_feedback(socket, self._duties.feedback))
        return senders

    async def _send_answers(
        self, socket: ClientConnection, answers: Callable[[], tuple[AnswerCount, ...]]
    ) -> None:
        sent: tuple[AnswerCount, ...] | None = None  # so the first is sent, also if it is empty
        while True:
            counts = answers()[:MOST_COUNTS]
            if counts != sent:
                await socket.send(encode(Answers(counts)))
                sent = counts
            await self._backoff.sleep(_ANSWERS_SECONDS)

    async def _send_feedback(self, socket: ClientConnection, feedback: FeedbackSubmitter) -> None:
        waiting: asyncio.Queue[Feedback | Locate] = asyncio.Queue()  # bounded by the submitter
        with feedback.connected(waiting.put_nowait):
            while True:
                await socket.send(encode(await waiting.get()))

    async def _send_reports(self, socket: ClientConnection, outbox: ObservationOutbox) -> None:
        outbox.rewind()
        while True:
            report = outbox.next_report()
            if report is not None:
                await socket.send(encode(report))
            else:
                outbox.has_news.clear()
                await outbox.has_news.wait()

    async def _renew(self, socket: ClientConnection, lease: Lease) -> None:
        while True:
            # A process that could not take a table over may have one with a candidate that was
            # rolled back since.
            await self._is_current.wait()
            self._must_renew.clear()
            now = self._backoff.now()
            question = lease.ask(now, self._duties.stopped(now), self._duties.kills())
            await socket.send(encode(question))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(lease.period_seconds):
                    await self._must_renew.wait()

    async def _follow(self, socket: ClientConnection) -> None:
        unknown = UnknownMessages("control")
        async for text in socket:
            message = from_control(text)
            if isinstance(message, UnknownMessage):
                unknown.note(message)
            elif isinstance(message, Push):
                await self._take_push(socket, message)
            else:
                answer = self._hear(message)
                if answer is not None:
                    await socket.send(encode(answer))

    def _hear(
        self, message: LeaseGrant | Stored | Probe | Seek | FeedbackDone | Located
    ) -> Beat | Found | None:
        duties = self._duties
        match message:
            case Seek() if duties.feedback is not None:
                return duties.feedback.found(message)
            case FeedbackDone() if duties.feedback is not None:
                duties.feedback.done(message)
            case Located() if duties.feedback is not None:
                duties.feedback.homes.located(message)
            case LeaseGrant() if duties.lease is not None:
                duties.lease.answered(message)
            case Stored(process_start_id=process_start_id, seq=seq) if duties.outbox is not None:
                duties.outbox.acknowledge(process_start_id, seq)
                self._was_acknowledged.set()
            case Probe(nonce=nonce) if duties.is_comparing is not None:
                is_alive = duties.is_comparing() and self._is_current.is_set()
                return Beat(nonce, duties.stopped(self._backoff.now())) if is_alive else None
            case _:
                raise LinkError(f"{type(message).__name__} was not asked for")
        return None

    async def _take_push(self, socket: ClientConnection, push: Push) -> None:
        taken = self._in_force.take(push)
        if isinstance(taken, EpochApplied):
            self._is_current.set()
        else:
            self._is_current.clear()
            if self._duties.lease is not None:
                self._duties.lease.revoke()
        await socket.send(encode(taken))
        # The table may have a model that no lease was granted for yet.
        self._must_renew.set()
        if self.connected_since is None:
            self.connected_since = self._backoff.now()
            self._failures = 0
            log.info("control_link_up", extra={"epoch": self.last_epoch})

    def _report(self, error: str, *, is_refusal: bool) -> None:
        # Logged once per outage, not once per attempt; but a refusal is the operator's to mend.
        if self._failures == 0 or is_refusal:
            log.warning("control_link_down", extra={"error": error, "last_epoch": self.last_epoch})


async def _run(sender: Coroutine[Any, Any, None], socket: ClientConnection) -> None:
    try:
        await sender
    except ConnectionClosed:
        return  # the reader of the connection reports it
    except Exception:
        log.exception("link_chore_failed")
        # A link that does half of its duty is worse than none, because none ends the leases.
        await socket.close()
