"""Makes every change to the flags: validate -> durable event -> new epoch -> every gateway.

Changes are made one at a time, each validated against the state that it changes, and folded before
it is stored. The wait for the gateways comes after that: one that hangs delays no other change.

Reading order: Controller.apply, Controller.commit.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from penumbra.deployments.control import authorship
from penumbra.deployments.control.aside_log import log_set_aside
from penumbra.deployments.control.kept_folds import KeptState, state_at_start
from penumbra.deployments.control.standing import Standing
from penumbra.deployments.control.store_thread import StoreThread
from penumbra.deployments.control.turns import (
    CHANGE_SECONDS,
    PATIENT_SECONDS,
    READ_SECONDS,
    Turns,
    seconds_left,
)
from penumbra.deployments.errors import Conflict, StoreInDoubt, StoreUnavailable
from penumbra.deployments.evidence.dry_fold import fold_ahead
from penumbra.deployments.evidence.stored_fold import fold_stored
from penumbra.deployments.gateways.delivery import Delivery
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history import config_effects, flag_drafts
from penumbra.deployments.history.changes import Arrival, Change, ChangeOutcome, Clocks, Edit
from penumbra.deployments.history.config_effects import structure_of
from penumbra.deployments.history.event_digest import NOTHING, Newest, digest_of
from penumbra.deployments.history.events import ConfigPayload, Draft, Event
from penumbra.deployments.history.recovered import Known
from penumbra.deployments.history.set_aside import SetAside
from penumbra.deployments.history.split_places import keep_places
from penumbra.deployments.history.state import EMPTY, State
from penumbra.deployments.metrics.control_metrics import ControlMetrics, Series
from penumbra.deployments.metrics.flag_series import feedback_series, flag_series, link_series
from penumbra.deployments.metrics.history_counters import HistoryCounters
from penumbra.deployments.store.observation_tables import CommitExtras
from penumbra.deployments.store.store import Store
from penumbra.router.flags.routing_table import Flag

T = TypeVar("T")

_NO_EXTRAS = CommitExtras()

_CLOSE_SECONDS = 2.0

__all__ = ["Change", "ChangeOutcome", "Clocks", "Controller", "Edit"]


class Controller:
    """The one writer of an installation's flags.

    Args:
        store: Holds the events.
        publisher: Sends the routing tables to the gateways.
        clocks: Wall clock and monotonic clock.
        acknowledge_seconds: Longest wait for the gateways before a change is answered.
    """

    def __init__(
        self, store: Store, publisher: Publisher, clocks: Clocks, acknowledge_seconds: float
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._clocks = clocks
        self._acknowledge_seconds = acknowledge_seconds
        self._turns = Turns()
        # One thread: a read after a write that failed sees all of that write, or nothing.
        self._thread = StoreThread("store")
        # Another thread reads the history, so that a long read delays no change.
        self._reader = StoreThread("store-reader")
        self._is_in_doubt = False
        """Whether a commit may still be under way in the database."""
        self.is_behind = True
        """Whether the store may hold events that `state` lacks: not started, or a write failed."""
        self._is_committing = False
        self.state: State = EMPTY
        self.newest = NOTHING
        """The newest event that `state` holds."""
        self.checkpoint_key: bytes | None = None
        """Signs checkpoints; None: none is written or read."""
        self.standing = Standing()
        self._remembering: asyncio.Task[None] | None = None
        self.metrics = ControlMetrics()
        self.metrics.expose("controller", self._collect_series)

    async def apply(self, change: Change) -> ChangeOutcome:
        """Make a change; it is durable when this returns.

        Raises:
            NotFound: No such model.
            Conflict: The flag was changed since the expected epoch.
            FlagRefused, ChangeUnfoldable: The new flag makes no sense; nothing was changed.
            StoreUnavailable: The store failed; nothing was changed.
            StoreInDoubt: The store failed; it is not known whether something was changed.
        """
        began = self._clocks.monotonic()
        async with self.writing():
            drafts = flag_drafts.draft_change(self.state, change)
            durable_at = began
            delivery = None
            if drafts:
                durable_at, delivery = await self.commit(drafts)
            epoch = self.state.epoch
        arrival = await self.await_arrival(epoch, delivery)
        return ChangeOutcome(epoch, bool(drafts), arrival, durable_at - began)

    async def configure(self, payload: ConfigPayload, actor: str, reason: str = "") -> bool:
        """Apply a configuration, at a start.

        Returns:
            Whether it differs from the one before.

        Raises:
            StoreUnavailable: The store failed; nothing was changed.
        """
        async with self.writing():
            payload = keep_places(payload, self.state.places)
            is_told = payload.keys in (None, self.state.keys) and payload.engines in (
                None,
                self.state.engines,
            )
            if is_told and structure_of(payload.models) == structure_of(self.state.models):
                return False
            now = self._clocks.now()
            await self.commit(config_effects.apply_config(self.state, payload, actor, now, reason))
            return True

    async def reset(self, name: str, flag: Flag, actor: str, reason: str) -> int:
        """Store a flag for a model without validating it.

        It is for the time between two configurations: the next start validates the flag.

        Returns:
            The new epoch.

        Raises:
            NotFound: The store holds no flag of that model.
            StoreUnavailable: The store failed; nothing was changed.
        """
        async with self._turns.take(CHANGE_SECONDS):
            drafts = flag_drafts.draft_reset(
                self.state, name, flag, actor, reason, self._clocks.now()
            )
            await self.commit(drafts)
            return self.state.epoch

    @property
    def kept_state(self) -> KeptState:
        """Fold of all events up to `newest`, for a checkpoint."""
        return KeptState(self.state, self.metrics.history_counters, self.newest)

    @property
    def has_lost_track(self) -> bool:
        """Whether the store may hold what `state` lacks, but for a commit that is under way."""
        return self.is_behind and not self._is_committing

    async def read(self, query: Callable[[Store], T]) -> T:
        """Read the store in a thread of its own; changes go on meanwhile.

        Raises:
            StoreUnavailable: The store cannot be read, or not within `READ_SECONDS`.
        """
        return await self._reader.run(lambda: query(self._store), READ_SECONDS)

    @property
    def stuck_seconds(self) -> float:
        """Seconds since the store was asked for what it has not answered in time; 0: it answers."""
        return self._thread.stuck_seconds

    async def renew(self, seconds: float, lease_seconds: float) -> None:
        """Renew the right to write, which proves that the store takes writes and is as known here.

        Args:
            seconds: Length of the right to write.
            lease_seconds: Longest lease that gateways are granted; 0: none asked for one yet.

        Raises:
            NotLeader: Another process leads.
            Conflict: The store's newest event is not the one that this process knows.
            StoreUnavailable: The store does not take writes.
        """
        async with self.writing():
            newest = await self.on_store_thread(lambda store: store.renew(seconds, lease_seconds))
            if newest != self.newest:
                self.is_behind = True
                raise Conflict(
                    f"the store is at epoch {newest.epoch}, this process at {self.newest.epoch}"
                )

    async def follow(self) -> None:
        """Read what the store holds and `state` lacks, and publish its routing table.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        async with self._turns.take(PATIENT_SECONDS):
            await self._catch_up()

    def close(self) -> None:
        """Wait a while for the store's work under way, and close the store."""
        self._thread.close(_CLOSE_SECONDS)
        self._reader.close(_CLOSE_SECONDS)
        self._store.close()

    @asynccontextmanager
    async def writing(self, seconds: float = CHANGE_SECONDS) -> AsyncIterator[None]:
        """Hold the write lock: `state` is the newest, and `commit` may be called.

        Args:
            seconds: Longest time for it: the wait for the lock, and what the store is asked within.

        Raises:
            NotLeader: Another process leads.
            StoreUnavailable: The store cannot be read, or other changes take too long.
        """
        async with self._turns.take(seconds):
            self.standing.require_leading()
            if self.is_behind:
                await self._catch_up()
            yield

    async def commit(
        self, drafts: Sequence[Draft], extras: CommitExtras = _NO_EXTRAS
    ) -> tuple[float, Delivery | None]:
        """Store events and what goes with them in one transaction, and publish the new epoch.

        Allowed only within `writing`.

        Returns:
            When it was durable, by the monotonic clock; and the delivery of the new epoch, None if
            there are no events.

        Raises:
            ChangeUnfoldable: An event cannot be folded; nothing was changed.
            Unauthorized: The token of the request was revoked meanwhile; nothing was changed.
            NotLeader: Another process has taken over; nothing was changed.
            StoreUnavailable: Nothing was changed.
            StoreInDoubt: It is not known whether something was changed.
        """
        drafts = authorship.signed(drafts)
        expected, at = self.state.epoch, self._clocks.now()
        ahead = fold_ahead(self.state, drafts, at)

        def append() -> tuple[list[Event], float]:
            return self._store.append(drafts, expected, at, extras), self._clocks.monotonic()

        # Should this fail, only the store knows what was written.
        self.is_behind = self._is_committing = True
        try:
            events, durable_at = await self._in_thread(append)
        except StoreUnavailable as error:
            self.metrics.store_failures += 1
            self._is_in_doubt |= isinstance(error, StoreInDoubt)
            raise
        finally:
            self._is_committing = False
        newest = self.newest
        if events:
            newest = Newest(events[-1].epoch, digest_of(dict(events[-1])))
        self._advance(events, ahead, newest)
        if not events:
            return durable_at, None
        delivery = self._publish(durable_at)
        self.metrics.watch(delivery, self._acknowledge_seconds)
        return durable_at, delivery

    async def on_store_thread(self, work: Callable[[Store], T]) -> T:
        """Run reads, or writes that are no events, on the thread that commits.

        They run after the commits under way, so a read sees all of them.

        Raises:
            StoreUnavailable: The store cannot be read or written, or not in time; nothing was
                changed.
            StoreInDoubt: It is not known whether something was changed.
        """
        return await self._in_thread(lambda: work(self._store))

    async def _catch_up(self) -> None:
        known = self.newest
        is_leading = self.standing.leader_address is None

        def read() -> tuple[KeptState | None, str, list[Event | SetAside], Newest]:
            if self._is_in_doubt and is_leading:
                # It holds the row of the lease, which this waits for: after that it is in the
                # store, or never will be.
                self._store.write(lambda connection: None)
            kept = state_at_start(self._store, self.checkpoint_key) if known == NOTHING else None
            since = known if kept is None else kept.newest
            return kept, self._store.name_at(known.epoch), *self._store.stored_since(since)

        kept, digest, found, newest = await self._in_thread(read)
        self._is_in_doubt &= not is_leading
        if digest == known.digest:
            self._take(found, newest, kept)
            # What was published may name a generation that another leader has ended since.
            is_renamed = self._publisher.generation != self.standing.generation
            if found or kept is not None or is_renamed:
                self._publish(self._clocks.monotonic())
            return
        # The store has lost events that this process had read: begin anew with what it holds.
        state = self.state
        found, newest = await self._in_thread(lambda: self._store.stored_since(NOTHING))
        self.state = EMPTY
        self.metrics.history_counters = HistoryCounters()
        self._take(found, newest)
        seen = state.restrictions, frozenset(state.identities.revoked)
        try:
            await self.standing.recover(
                Known(self.standing.generation, known.epoch, known.digest, *seen)
            )
        except BaseException:
            # What was lost is known here alone: the next look at the store has to find it again.
            self.state, self.newest, self.is_behind = state, known, True
            raise

    def _take(
        self, found: Sequence[Event | SetAside], newest: Newest, kept: KeptState | None = None
    ) -> None:
        known = self.state.aside
        if kept is not None:
            self.state, self.metrics.history_counters = kept.state, kept.counters
        state = fold_stored(self.state, found)
        self._advance([each for each in found if isinstance(each, Event)], state, newest)
        log_set_aside(known, state.aside)

    def _publish(self, durable_at: float) -> Delivery:
        self._publisher.generation = self.standing.generation
        delivery = self._publisher.publish(self.state.snapshot(), durable_at, self.newest.digest)
        self._remembering = asyncio.create_task(self.standing.remember())
        return delivery

    def _advance(self, events: Sequence[Event], state: State, newest: Newest) -> None:
        self.state, self.newest = state, newest
        self.metrics.history_counters.take(events)
        self.is_behind = False

    async def _collect_series(self) -> list[Series]:
        state = self.state
        return [
            *flag_series(state),
            *feedback_series(state, self.metrics.feedback),
            *link_series(self._publisher.links, state.epoch),
        ]

    async def await_arrival(self, epoch: int, delivery: Delivery | None) -> Arrival:
        """Wait for the gateways that an epoch was sent to; never within `writing`.

        Args:
            epoch: The epoch.
            delivery: From `commit`; None: nothing was stored, and the epoch is in force already.

        Raises:
            StoreInDoubt: The store went back meanwhile, and may have lost the epoch.
        """
        generation = self.standing.generation
        arrival = await self._arrive(epoch, delivery)
        if self.standing.generation != generation:
            raise StoreInDoubt("the store lost events before the gateways had answered")
        return arrival

    async def _arrive(self, epoch: int, delivery: Delivery | None) -> Arrival:
        now = self._clocks.monotonic()
        seconds = max(self.standing.leases_until, self.standing.cut_off_until(now)) - now
        if delivery is not None and seconds <= 0:
            return await delivery.wait(self._acknowledge_seconds)
        # A gateway that still follows the leader before, or is cut off, may give the candidate
        # traffic, also if this change was made already.
        await asyncio.sleep(max(0.0, seconds))
        links = self._publisher.links
        return Arrival(len(links), sum(link.epoch >= epoch for link in links), None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._thread.run(work, seconds_left())
