"""Carries every new epoch to every gateway at once, and knows who has put it into force.

Each gateway has a task of its own that sends it the newest table -- only ever the newest, so a slow
gateway skips epochs and holds up nobody. `publish` hands over and returns; `Delivery.wait` is for
whoever wants to know when it has arrived. A second publisher follows the first and serves the
comparators, whose acknowledgements nobody waits for.
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
    from_gateway,
    push_of,
)

log = logging.getLogger(__name__)

_HELLO_SECONDS = 5.0


class Delivery:
    """One epoch on its way."""

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
        """Have this called once nobody's answer is missing any more, however long that takes."""
        self._on_over = call
        if self.is_over:
            call(self._arrival)

    async def wait(self, seconds: float) -> Arrival:
        """Wait until every gateway has answered or is gone, at most so long."""
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
        """Whether nobody's answer is missing any more."""
        return not self._waiting

    def answered(self, link: Link, epoch: int, at: float) -> None:
        """A gateway has put `epoch` into force."""
        if epoch >= self._epoch and link in self._waiting:
            self._acknowledged += 1
            self._last_at = at
            link.last_propagation_seconds = at - self._durable_at
            self.dropped(link)

    def refused(self, link: Link, epoch: int) -> None:
        """A gateway will not have `epoch`; -1 if it could not even read it."""
        if epoch < 0 or epoch >= self._epoch:
            self.dropped(link)

    def dropped(self, link: Link) -> None:
        """No answer will come from this gateway."""
        self._waiting.discard(link)
        if self._waiting or self._is_done.is_set():
            return
        self._is_done.set()
        if self._on_over is not None:
            self._on_over(self._arrival)


class Publisher:
    """All gateways that are connected, or all comparators.

    Args:
        store: Identity of the store whose epochs these are.
        now: Monotonic clock, seconds.
        desk: Hears what they say besides which table they have; without one that is an error.
        follower: Gets every table too, and is waited for by nobody.
    """

    def __init__(
        self,
        store: str,
        now: Callable[[], float],
        desk: LinkInbox | None = None,
        follower: "Publisher | None" = None,
    ) -> None:
        self._store = store
        self._now = now
        self._desk = desk
        self._follower = follower
        self._links: set[Link] = set()
        self._deliveries: set[Delivery] = set()
        self._push: str | None = None
        self.on_come: Callable[[Link], None] = _ignore
        self.on_go: Callable[[Link], None] = _ignore

    @property
    def links(self) -> tuple[Link, ...]:
        """The connected gateways, by name."""
        return tuple(sorted(self._links, key=lambda link: (link.hello.gateway, link.hello.pid)))

    def publish(self, snapshot: Snapshot, durable_at: float) -> Delivery:
        """Hand an epoch over to every gateway.

        Args:
            snapshot: The table.
            durable_at: When it was committed, by `now`.
        """
        self._push = push_of(self._store, snapshot)
        delivery = Delivery(snapshot.epoch, self._links, durable_at)
        self._deliveries = {other for other in self._deliveries if not other.is_over}
        self._deliveries.add(delivery)
        if self._desk is not None:
            self._desk.snapshot = snapshot
        for link in self._links:
            link.offer(self._push)
        if self._follower is not None:
            self._follower.publish(snapshot, durable_at)
        return delivery

    async def attend(self, channel: Channel, peer: str = "") -> None:
        """Keep one gateway up to date until its connection closes.

        Args:
            channel: The connection.
            peer: The host at its other end.

        Raises:
            LinkError: It said something that is no message.
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
        self.on_come(link)
        log.info("gateway_connected", extra={"gateway": hello.gateway, "gateway_pid": hello.pid})
        chores = [asyncio.create_task(_until_closed(link.send_news))]
        try:
            if self._push is not None:
                link.offer(self._push)
            if self._desk is not None:
                chores.append(self._desk.open(link))
            await _until_closed(lambda: self._listen(link, channel))
        finally:
            for chore in chores:
                chore.cancel()
            if self._desk is not None:
                self._desk.close(link)
            self._forget(link)

    async def _listen(self, link: Link, channel: Channel) -> None:
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
            self._heard(link, message)

    def _heard(self, link: Link, message: FromGateway) -> None:
        match message:
            case EpochApplied(epoch=epoch):
                link.epoch, link.refusal = epoch, None
                for delivery in self._deliveries:
                    delivery.answered(link, epoch, self._now())
            case Refused(epoch=epoch, detail=detail):
                link.refusal = detail
                log.error(
                    "snapshot_refused_by_gateway",
                    extra={"gateway": link.hello.gateway, "epoch": epoch, "detail": detail},
                )
                for delivery in self._deliveries:
                    delivery.refused(link, epoch)
            case Hello():
                raise LinkError("a second hello")
            case _ if self._desk is not None:
                self._desk.heard(link, message)
            case _:
                raise LinkError(f"{type(message).__name__}: nobody hears that here")

    def _of_same_process(self, hello: Hello) -> list[Link]:
        # On another machine somebody else may be called so, and in containers all are process 1.
        return [link for link in self._links if _who(link.hello) == _who(hello)]

    def _forget(self, link: Link) -> None:
        if link not in self._links:
            return
        self._links.remove(link)
        self.on_go(link)
        for delivery in self._deliveries:
            delivery.dropped(link)
        hello = link.hello
        log.info("gateway_gone", extra={"gateway": hello.gateway, "gateway_pid": hello.pid})


def _ignore(link: Link) -> None:
    del link


def _who(hello: Hello) -> tuple[str, int, str]:
    return hello.gateway, hello.pid, hello.host


async def _until_closed(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except LinkClosed:
        return
