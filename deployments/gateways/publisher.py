"""Sends every new epoch to all connected processes at once, and records which have applied it.

Each process has a task of its own that sends it the newest table. A slow process skips epochs and
delays no other. `publish` returns at once; `Delivery.wait` waits for the acknowledgements. A second
publisher follows the first and serves the comparators; no change waits for theirs.

Reading order: Publisher.publish, Publisher.attend, Delivery.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.link import Channel, Link, LinkClosed
from penumbra.deployments.history.changes import Arrival
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.messages import (
    EpochApplied,
    FromGateway,
    Hello,
    LinkError,
    Refused,
    UnknownMessage,
    from_gateway,
    push_of,
)
from penumbra.router.link.unknown_messages import UnknownMessages
from penumbra.router.link.unreadable_report import UnreadableReport

log = logging.getLogger(__name__)

_HELLO_SECONDS = 5.0


class Delivery:
    """One epoch on its way to the gateways that were connected when it was published.

    Args:
        epoch: The epoch.
        links: The gateways that it goes to.
        durable_at: When it was committed; monotonic seconds.
    """

    def __init__(self, epoch: int, links: set[Link], durable_at: float) -> None:
        self._epoch = epoch
        self._durable_at = durable_at
        self._connected = len(links)
        self._waiting = set(links)
        self._acknowledged = 0
        self._last_at = durable_at
        self._is_done = asyncio.Event()
        self._on_over: Callable[[Arrival], None] | None = None
        if not links:
            self._is_done.set()

    def when_over(self, call: Callable[[Arrival], None]) -> None:
        """Call this once every gateway has answered or is gone; at once if that is so already."""
        self._on_over = call
        if self.is_over:
            call(self._arrival)

    async def wait(self, seconds: float) -> Arrival:
        """Wait until every gateway has answered or is gone, at most this long."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_done.wait()
        except TimeoutError:
            log.warning(
                "snapshot_unacknowledged",
                extra={
                    "epoch": self._epoch,
                    "gateways": sorted(link.hello.gateway for link in self._waiting),
                },
            )
        return self._arrival

    @property
    def _arrival(self) -> Arrival:
        is_complete = 0 < self._connected == self._acknowledged
        took = self._last_at - self._durable_at if is_complete else None
        return Arrival(self._connected, self._acknowledged, took)

    @property
    def is_over(self) -> bool:
        """Whether every gateway has answered or is gone."""
        return not self._waiting

    def acknowledge(self, link: Link, epoch: int, at: float) -> None:
        """Record that a gateway has applied `epoch`."""
        if epoch >= self._epoch and link in self._waiting:
            self._acknowledged += 1
            self._last_at = at
            link.last_propagation_seconds = at - self._durable_at
            self.drop(link)

    def refuse(self, link: Link, epoch: int) -> None:
        """Record that a gateway refused `epoch`; -1 if it could not even read the table."""
        if epoch < 0 or epoch >= self._epoch:
            self.drop(link)

    def drop(self, link: Link) -> None:
        """Stop waiting for a gateway."""
        self._waiting.discard(link)
        if self._waiting or self._is_done.is_set():
            return
        self._is_done.set()
        if self._on_over is not None:
            self._on_over(self._arrival)


def _ignore(link: Link) -> None:
    del link


class Publisher:
    """The connected processes of one kind: all gateways, or all comparators.

    Args:
        store: Identity of the store whose epochs these are.
        now: Monotonic clock, seconds.
        follower: Publishes every table too; no delivery waits for its processes.
        on_connect: Called with every new link, after its hello.
        on_disconnect: Called with every link that is over.
    """

    def __init__(
        self,
        store: str,
        now: Callable[[], float],
        *,
        follower: "Publisher | None" = None,
        on_connect: Callable[[Link], None] = _ignore,
        on_disconnect: Callable[[Link], None] = _ignore,
    ) -> None:
        self.snapshot = Snapshot(epoch=0, models={})
        """The newest routing table; epoch 0 before the first."""
        self._store = store
        self._now = now
        self._follower = follower
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._links: set[Link] = set()
        self._deliveries: set[Delivery] = set()
        self._push: str | None = None

    @property
    def links(self) -> tuple[Link, ...]:
        """The connected processes, by name."""
        return tuple(sorted(self._links, key=lambda link: (link.hello.gateway, link.hello.pid)))

    def publish(self, snapshot: Snapshot, durable_at: float) -> Delivery:
        """Send an epoch to every connected process, and to every one that connects later.

        Args:
            snapshot: The table.
            durable_at: When it was committed, by `now`.
        """
        self._push = push_of(self._store, snapshot)
        delivery = Delivery(snapshot.epoch, self._links, durable_at)
        self._deliveries = {other for other in self._deliveries if not other.is_over}
        self._deliveries.add(delivery)
        self.snapshot = snapshot
        for link in self._links:
            link.offer(self._push)
        if self._follower is not None:
            self._follower.publish(snapshot, durable_at)
        return delivery

    async def attend(
        self, channel: Channel, inbox: LinkInbox | None = None, peer: str = ""
    ) -> None:
        """Keep one process up to date until its connection closes.

        Args:
            channel: The connection.
            inbox: Takes all messages but acknowledgements; without one they break the link.
            peer: The host at the other end of the connection.

        Raises:
            LinkError: The process sent something that is no message, or not allowed now.
        """
        async with asyncio.timeout(_HELLO_SECONDS):
            hello = from_gateway(await channel.receive())
        if not isinstance(hello, Hello):
            raise LinkError("a link begins with a hello")
        for stale in self._of_same_process(hello):
            # It connected again before its broken connection was noticed here.
            self._forget(stale)
        link = Link(hello, channel, self._now(), peer)
        self._links.add(link)
        self._on_connect(link)
        log.info(
            "gateway_connected",
            extra={
                "gateway": hello.gateway,
                "gateway_pid": hello.pid,
                "link_version": hello.version,
            },
        )
        tasks = [asyncio.create_task(_run_until_closed(link.run_sender))]
        try:
            if self._push is not None:
                link.offer(self._push)
            if inbox is not None:
                tasks.append(inbox.open(link))
            await _run_until_closed(lambda: self._listen(link, channel, inbox))
        finally:
            for task in tasks:
                task.cancel()
            if inbox is not None:
                inbox.close(link)
            self._forget(link)

    async def _listen(self, link: Link, channel: Channel, inbox: LinkInbox | None) -> None:
        unknown = UnknownMessages(link.hello.gateway)
        while True:
            try:
                text = await channel.receive()
            except LinkClosed as closed:
                link.has_ended = closed.has_ended
                raise
            message = from_gateway(text)
            if link not in self._links:
                # Another one has taken its place: it gets no tables, so it must get no lease.
                raise LinkClosed("replaced")
            if isinstance(message, UnknownMessage):
                unknown.note(message)
                continue
            self._handle(link, message, inbox)

    def _handle(
        self, link: Link, message: FromGateway | UnreadableReport, inbox: LinkInbox | None
    ) -> None:
        match message:
            case EpochApplied(epoch=epoch):
                link.epoch, link.refusal = epoch, None
                for delivery in self._deliveries:
                    delivery.acknowledge(link, epoch, self._now())
            case Refused(epoch=epoch, detail=detail):
                link.refusal = detail
                log.error(
                    "snapshot_refused_by_gateway",
                    extra={"gateway": link.hello.gateway, "epoch": epoch, "detail": detail},
                )
                for delivery in self._deliveries:
                    delivery.refuse(link, epoch)
            case Hello():
                raise LinkError("a second hello")
            case _ if inbox is not None:
                inbox.handle(link, message)
            case _:
                raise LinkError(f"{type(message).__name__}: this link has no inbox for it")

    def _of_same_process(self, hello: Hello) -> list[Link]:
        # The host counts: two machines may use one name, and in containers every pid is 1.
        return [link for link in self._links if _identity(link.hello) == _identity(hello)]

    def _forget(self, link: Link) -> None:
        if link not in self._links:
            return
        self._links.remove(link)
        self._on_disconnect(link)
        for delivery in self._deliveries:
            delivery.drop(link)
        hello = link.hello
        log.info("gateway_gone", extra={"gateway": hello.gateway, "gateway_pid": hello.pid})


def _identity(hello: Hello) -> tuple[str, int, str]:
    return hello.gateway, hello.pid, hello.host


async def _run_until_closed(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except LinkClosed:
        return
