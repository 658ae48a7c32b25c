"""Sends every new epoch to all connected processes at once, and records which have applied it.

Each process has a task of its own that sends it the newest table. A slow process skips epochs and
delays no other. `publish` returns at once; `Delivery.wait` waits for the acknowledgements. A second
publisher follows the first and serves the comparators; no change waits for theirs.

Reading order: Publisher.publish, Publisher.attend, Delivery.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from penumbra.deployments.gateways.delivery import Delivery
from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.link import Channel, Link, LinkClosed
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
from penumbra.router.link.table_identity import TableName
from penumbra.router.link.unknown_messages import UnknownMessages
from penumbra.router.link.unreadable_report import UnreadableReport

log = logging.getLogger(__name__)

_HELLO_SECONDS = 5.0
_REMEMBERED = 256
"""Publications whose acknowledgement is understood, at most."""


def _ignore(link: Link) -> None:
    del link


async def _believe(hello: Hello) -> None:
    del hello


class Publisher:
    """The connected processes of one kind: all gateways, or all comparators.

    Args:
        store: Identity of the store whose epochs these are.
        now: Monotonic clock, seconds.
        follower: Publishes every table too; no delivery waits for its processes.
        on_hello: Called with every hello before its link gets a table; raises LinkClosed if it may
            get none now.
        on_connect: Called with every new link, after its hello.
        on_disconnect: Called with every link that is over.
    """

    def __init__(
        self,
        store: str,
        now: Callable[[], float],
        *,
        follower: "Publisher | None" = None,
        on_hello: Callable[[Hello], Awaitable[None]] = _believe,
        on_connect: Callable[[Link], None] = _ignore,
        on_disconnect: Callable[[Link], None] = _ignore,
    ) -> None:
        self.snapshot = Snapshot(epoch=0, models={})
        """The newest routing table; epoch 0 before the first."""
        self.generation = 1
        """Generation of the store whose tables are published from now on."""
        self.on_hello = on_hello
        self._store = store
        self._publications = 0
        self._published: dict[TableName, int] = {}
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

    def publish(self, snapshot: Snapshot, durable_at: float, digest: str = "") -> Delivery:
        """Send an epoch to every connected process, and to every one that connects later.

        Args:
            snapshot: The table.
            durable_at: When it was committed, by `now`.
            digest: Digest of the event that made it; names the table with store and epoch.
        """
        self._push = push_of(self._store, snapshot, self.generation, digest)
        number = self._number_of(TableName(self._store, self.generation, snapshot.epoch, digest))
        delivery = Delivery(snapshot.epoch, number, self._links, durable_at)
        self._deliveries = {other for other in self._deliveries if not other.is_over}
        self._deliveries.add(delivery)
        self.snapshot = snapshot
        for link in self._links:
            link.offer(self._push)
        if self._follower is not None:
            self._follower.generation = self.generation
            # Comparators let no caller in.
            without_keys = snapshot.model_copy(update={"keys": None})
            self._follower.publish(without_keys, durable_at, digest)
        return delivery

    def _number_of(self, name: TableName) -> int:
        self._publications += 1
        self._published[name] = self._publications
        if len(self._published) > _REMEMBERED:
            del self._published[next(iter(self._published))]
        return self._publications

    def _find(self, applied: EpochApplied) -> int | None:
        """The number of the publication that an acknowledgement means; None: of none."""
        name = TableName(self._store, applied.generation, applied.epoch, applied.digest)
        if applied.digest:
            return self._published.get(name)
        # A gateway of before names knows epochs only.
        numbers = [n for other, n in self._published.items() if other.epoch == applied.epoch]
        return max(numbers, default=None)

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
        await self.on_hello(hello)
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
            case EpochApplied():
                self._acknowledge(link, message)
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

    def _acknowledge(self, link: Link, applied: EpochApplied) -> None:
        number = self._find(applied)
        if number is None:
            # It has another table under this epoch: it must not count as having this one.
            log.error(
                "table_unknown",
                extra={
                    "gateway": link.hello.gateway,
                    "epoch": applied.epoch,
                    "generation": applied.generation,
                },
            )
            return
        link.epoch, link.refusal = applied.epoch, None
        for delivery in self._deliveries:
            delivery.acknowledge(link, number, self._now())

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
