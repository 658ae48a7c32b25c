"""One routing table on its way to the gateways, and the acknowledgements that it waits for."""

import asyncio
import logging
from collections.abc import Callable

from penumbra.deployments.gateways.link import Link
from penumbra.deployments.history.changes import Arrival

log = logging.getLogger(__name__)


class Delivery:
    """One epoch on its way to the gateways that were connected when it was published.

    Args:
        epoch: The epoch.
        number: Number of the publication; each is greater than the one before.
        links: The gateways that it goes to.
        durable_at: When it was committed; monotonic seconds.
    """

    def __init__(self, epoch: int, number: int, links: set[Link], durable_at: float) -> None:
        self._epoch = epoch
        self._number = number
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

    def acknowledge(self, link: Link, number: int, at: float) -> None:
        """Record that a gateway has applied the table of a publication."""
        if number >= self._number and link in self._waiting:
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
