"""Leads, or stands by: of all control processes on one store, at most one writes and grants leases.

The process that holds the fencing lease (`penumbra.deployments.store.fencing`) leads: its tick
makes the due decisions and renews the lease, which is also the proof that the store takes writes.
Any other one stands by: it reads what the leader writes, and takes over when the lease is out. A
leader that finds the lease taken stands by from then on; the store has refused its writes already.

Leases of gateways need no word between two leaders. The row tells for how long the leader before
may have granted any, and the next one answers no change before that (`Standing.leases_until`). That
time is counted by the next leader's own clock, from when it first saw the last renewal: the
database's may have been set since.

Reading order: Leadership.stand, Leadership.run.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.fence_times import LONGEST_LEASE_SECONDS, FenceTimes
from penumbra.deployments.errors import DeploymentsError, NotLeader, StoreUnavailable
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.store import fencing
from penumbra.deployments.store.fencing import Leader, Term
from penumbra.deployments.store.store import Store
from penumbra.monitoring.log_limit import LogLimit

log = logging.getLogger(__name__)

_MARGIN_SECONDS = 0.1
"""The clocks of a database and of a process may run apart by so much within a lease."""


async def _do_nothing() -> None:
    return


class Leadership:
    """The leadership of one control process.

    Args:
        controller: Refuses changes while this process does not lead.
        liveness: Grants leases only while it does.
        times: Times of the fencing lease.
        address: Base URL at which this process answers; others name it.
        now: Monotonic clock, seconds.
    """

    def __init__(
        self,
        controller: Controller,
        liveness: GuardLiveness,
        times: FenceTimes,
        address: str,
        now: Callable[[], float],
    ) -> None:
        self.is_leading = False
        self.times = times
        self.begin: Callable[[], Awaitable[None]] = _do_nothing
        """Called in a new term, before anything is decided; may raise."""
        self.end: Callable[[], Awaitable[None]] = _do_nothing
        """Called after a term that another process ended."""
        self._controller = controller
        self._liveness = liveness
        self._address = address
        self._now = now
        self._holder = uuid.uuid4().hex
        self._seen: Leader | None = None
        self._seen_at = self._renewed_at = now()
        self._longest_leases = 0.0
        """Longest leases of any leader that was seen, seconds: a store that went back may name an
        older row."""
        self._failures = LogLimit(now)
        self._faults = LogLimit(now)
        self._is_asked = asyncio.Event()
        liveness.on_first_question = self._is_asked.set

    async def stand(self) -> bool:
        """Lead if no other process does.

        Returns:
            Whether this process leads now.

        Raises:
            DeploymentsError: It could not begin; then it gives the lease up again.
        """
        if not await self._take():
            return False
        # To begin may take longer than the lease is.
        keeping = asyncio.create_task(self._keep())
        try:
            await self._controller.follow()
            await self.begin()
        except BaseException:
            await self.resign()
            await self.end()  # gateways may have come meanwhile
            raise
        finally:
            keeping.cancel()
        self.is_leading = True
        self._controller.standing.is_beginning = False
        self._renewed_at = self._now()
        log.info("leadership_begun", extra={"address": self._address, "epoch": self._epoch})
        return True

    async def stand_alone(self) -> None:
        """Lead, as a tool that must not be used while another process leads.

        Raises:
            NotLeader: Another process leads, and renewed its lease meanwhile.
            DeploymentsError: It could not begin.
        """
        first = await self._look()
        while not await self.stand():
            leader = await self._look()
            if leader.renewed_at > first.renewed_at:
                raise NotLeader.because_of(leader.address)
            await asyncio.sleep(self.times.look_seconds)

    async def renew(self) -> None:
        """Renew the lease, as the tick's proof that the store takes writes.

        Raises:
            NotLeader: Another process has taken over; this one stands by from now on.
            DeploymentsError: It is not renewed, or the store is not as this process knows it.
        """
        is_asked, asked_at = self._liveness.is_asked, self._now()
        times = self.times
        try:
            await self._controller.renew(
                times.fence_seconds, times.lease_seconds if is_asked else 0.0
            )
        except NotLeader as error:
            self._lose(error)
            raise
        self._renewed_at = asked_at
        if is_asked:
            self._liveness.allow_grants()

    async def run(self, tick: Callable[[], Awaitable[None]]) -> None:
        """Lead or stand by until cancelled.

        Args:
            tick: Makes the due decisions and renews the lease; does not raise.
        """
        while True:
            try:
                await (self.lead_once(tick) if self.is_leading else self._stand_by())
            except Exception as error:
                # Without this loop no process would lead any more.
                if (left_out := self._faults.take(type(error).__name__)) is not None:
                    log.exception("leadership_failed", extra={"repeated": left_out})
            seconds = self.times.renew_seconds if self.is_leading else self.times.look_seconds
            # The first question for leases is not left to wait for the next renewal.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_asked.wait()
            self._is_asked.clear()

    async def lead_once(self, tick: Callable[[], Awaitable[None]]) -> None:
        """Tick once, and stand by from then on if another process leads."""
        await tick()
        if self.is_leading and self._now() - self._renewed_at > self.times.fence_seconds:
            # Something fails before the renewal: it must not hide that the lease is another's.
            with contextlib.suppress(StoreUnavailable):
                leader = await self._look()
                if leader.holder != self._holder:
                    self._lose(NotLeader.because_of(leader.address))
        if not self.is_leading:
            await self.end()

    async def resign(self) -> None:
        """Give the lease up, so that the next leader need not wait for its end."""
        self._stand_down()
        with contextlib.suppress(StoreUnavailable):
            await self._controller.on_store_thread(lambda store: store.release())

    @property
    def _epoch(self) -> int:
        return self._controller.state.epoch

    async def _look(self) -> Leader:
        return await self._controller.on_store_thread(lambda store: store.look(fencing.read))

    async def _keep(self) -> None:
        seconds = self.times.fence_seconds
        while True:
            await asyncio.sleep(self.times.renew_seconds)
            with contextlib.suppress(DeploymentsError):
                # In the other thread: the store's own is busy with the beginning.
                await self._controller.read(lambda store: store.renew(seconds, 0.0))

    async def _take(self) -> bool:
        leader = await self._look()
        stale = leader if self._is_stale(leader) else None
        standing = self._controller.standing
        standing.leader_address, standing.generation = leader.address, leader.generation
        if stale is None and not leader.is_over:
            return False

        def acquire(store: Store) -> Term | None:
            store.acquire(self._holder, self._address, self.times.fence_seconds, stale)
            return store.term

        term = await self._controller.on_store_thread(acquire)
        if term is None:
            return False
        now = self._now()
        inherited = self._inherited_seconds(leader, term, now)
        self._liveness.begin_term(now, inherited)
        leases_until = now + inherited + _MARGIN_SECONDS if inherited else now
        self._controller.is_behind = True
        standing.generation, standing.leases_until = term.generation, leases_until
        standing.leader_address, standing.is_beginning = None, True
        return True

    def _inherited_seconds(self, leader: Leader, term: Term, now: float) -> float:
        """The time for which gateways may have leases of the leader before."""
        if leader.is_given_up:
            return min(term.inherited_seconds, leader.leases_seconds, LONGEST_LEASE_SECONDS)
        # Its last renewal was before it was seen here.
        longest = min(self._longest_leases, LONGEST_LEASE_SECONDS)
        return max(0.0, longest - (now - self._seen_at))

    def _is_stale(self, leader: Leader) -> bool:
        """Whether the row has not changed for longer than its lease, by this process's clock."""
        seen = self._seen
        if seen is None or (seen.fence, seen.until) != (leader.fence, leader.until):
            self._seen, self._seen_at = leader, self._now()
            self._longest_leases = max(self._longest_leases, leader.leases_seconds)
            return False
        return self._now() - self._seen_at > FenceTimes.unchanged_seconds(leader.seconds)

    async def _stand_by(self) -> None:
        try:
            if not await self.stand():
                await self._controller.follow()
        except DeploymentsError as error:
            if (left_out := self._failures.take(error.code)) is not None:
                log.error(
                    "standby_failed",
                    extra={"code": error.code, "detail": error.message, "repeated": left_out},
                )
        except Exception as error:
            if (left_out := self._failures.take(type(error).__name__)) is not None:
                log.exception("standby_failed", extra={"repeated": left_out})
        else:
            self._failures.end()

    def _lose(self, error: NotLeader) -> None:
        self._stand_down()
        log.warning("leadership_lost", extra={"detail": error.message})

    def _stand_down(self) -> None:
        self.is_leading = False
        self._controller.standing.leader_address = ""
        self._liveness.end_term()
        self._seen = None
