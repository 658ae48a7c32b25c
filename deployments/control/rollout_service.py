"""Runs all rollouts: stores reports, decides by the evidence, and commits what follows.

A report and the rollback that it causes are one transaction: the store never holds one without the
other. Reports that arrive while another commit is under way share the next commit.

After a commit that failed it is not known whether it happened. The evidence is then folded again
from the store before anything else is decided.

Reading order: RolloutService.take_report, RolloutService.decide_pending, RolloutService.change.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from penumbra.deployments.control import pending_reports, retention, stored_evidence
from penumbra.deployments.control.checkpoints import Checkpoints
from penumbra.deployments.control.compaction import Compaction
from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.pending_reports import LastNumbers, PendingReport, settle
from penumbra.deployments.control.retention import Lifetimes, Retention
from penumbra.deployments.control.rollback_timer import RollbackTimer
from penumbra.deployments.control.tracing import CommittedChange
from penumbra.deployments.control.turns import PATIENT_SECONDS
from penumbra.deployments.errors import AlreadyJudged, ChangeUnfoldable, NotFound
from penumbra.deployments.evidence.judge import (
    EvidenceBook,
    UnfoldableReport,
    name_of,
    report_of_feedback,
)
from penumbra.deployments.gateways.delivery import Delivery
from penumbra.deployments.history.config_effects import draft_of, require_readable
from penumbra.deployments.history.events import Draft
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import Key, Rollout
from penumbra.deployments.store import observation_tables
from penumbra.deployments.store.observation_tables import CommitExtras
from penumbra.monitoring.observations import Report
from penumbra.monitoring.tracing.tracer import Tracer

PRUNE_SECONDS = 3600.0
"""Seconds between two deletions of rows that are of no use any more."""
PRUNED_AT_ONCE = 1000
"""Rows that are deleted in one tick: others wait for the lock meanwhile."""

Edit = Callable[[Rollout], Rollout]


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """Result of a change by an operator or an alert."""

    rollout: Rollout
    epoch: int
    is_changed: bool
    delivery: Delivery | None
    """On its way to the gateways; None if nothing was changed."""


class RolloutService:
    """All rollouts of one control process.

    Args:
        controller: To be started before `start`.
        clocks: Wall clock and monotonic clock.
        acknowledge_seconds: Longest wait for the gateways' acknowledgements of a rollback.
        process_start_id: Random id of this process start.
        lifetimes: How long rows are stored.
        tracer: Records changes and rollbacks; None: tracing is off.
    """

    def __init__(
        self,
        controller: Controller,
        clocks: Clocks,
        acknowledge_seconds: float,
        process_start_id: str,
        lifetimes: Lifetimes = retention.DEFAULT,
        tracer: Tracer | None = None,
    ) -> None:
        self._controller = controller
        self._clocks = clocks
        self._process_start_id = process_start_id
        self._feedback_lifetime = timedelta(days=lifetimes.feedback_days)
        self._prune_at = clocks.now()
        self._is_behind = True
        """Whether the evidence may lack stored reports: not started, or a commit failed."""
        self._pending: list[PendingReport] = []
        self._last_numbers = LastNumbers()
        """Of the reports that were stored since the evidence was read."""
        self._judgements = 0
        self._rollback_timer = RollbackTimer(controller, clocks, acknowledge_seconds, tracer)
        self.evidence_book = EvidenceBook(clocks.now)
        """The evidence of all rollouts; other modules only read it."""
        self._retention = Retention(controller, clocks.now, lifetimes)
        self._checkpoints = Checkpoints(
            controller,
            self.evidence_book,
            self._catch_up,
            clocks.now,
            self._retention.spare_every,
        )
        self._compaction = Compaction(controller, clocks.now)

    @property
    def waiting(self) -> int:
        """Number of reports that are not durable yet."""
        return len(self._pending)

    async def start(self) -> None:
        """Fold the stored reports into the evidence.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        async with self._controller.writing(PATIENT_SECONDS):
            await self._catch_up()
            await self._rollback_timer.load()

    def lose_track(self) -> None:
        """Take note that another process stores reports now."""
        self._is_behind = True

    async def take_report(self, report: Report) -> None:
        """Take a report; when this returns, it and the decisions that it causes are durable.

        A report that is stored already changes nothing.

        Raises:
            ReportRefused: It cannot be counted: to send it again is of no use.
            StoreUnavailable: It is not stored, or that is not known: it is to be sent again.
        """
        pending_reports.require_sound(report)
        own = PendingReport(report, asyncio.get_running_loop().create_future())
        self._pending.append(own)
        try:
            async with self._controller.writing():
                if not own.done.done():
                    await self._take_pending()
        finally:
            # If this wait was cancelled, or never began, the sender sends the report again.
            self._pending = [pending for pending in self._pending if pending is not own]
        await own.done

    async def take_feedback(self, judgement: UserFeedback) -> None:
        """Store a user's judgement, and count it as evidence if its variant is under a rollout.

        Raises:
            AlreadyJudged: The request was judged differently before.
            StoreUnavailable: It is not stored, or that is not known.
        """
        async with self._controller.writing():
            await self._catch_up()
            key = judgement.tenant, judgement.request_id
            found = await self._controller.on_store_thread(
                lambda store: store.look(lambda c: observation_tables.judgement(c, *key))
            )
            if found == judgement:
                return
            if found is not None:
                raise AlreadyJudged(f"request {judgement.request_id} was judged differently before")
            self._judgements += 1
            report = report_of_feedback(
                judgement, self._controller.state, self._process_start_id, self._judgements
            )
            await self._store([report], [judgement])
            self._controller.metrics.count_judgement(judgement)

    async def decide_pending(self) -> None:
        """Make the decisions that are due by time alone.

        Raises:
            StoreUnavailable: They could not be stored.
        """
        async with self._controller.writing(PATIENT_SECONDS):
            await self._catch_up()
            drafts = self.evidence_book.reconsider(self._controller.state)
            if drafts:
                await self._commit(drafts, CommitExtras())

    async def keep_house(self) -> None:
        """Delete some rows of no use, compact some reports, write a checkpoint, as far as is due.

        Nothing waits for it, and no lease depends on it.

        Raises:
            NotLeader: Another process leads.
            StoreUnavailable: The store cannot be read or written.
        """
        if self._clocks.now() >= self._prune_at:
            async with self._controller.writing():
                await self._prune()
        await self._checkpoints.write_due()
        await self._compaction.work()
        await self._retention.work()

    async def change(self, key: Key, edit: Edit, actor: str, reason: str) -> ChangeResult:
        """Change a rollout for an operator or an alert.

        Args:
            key: (model, candidate).
            edit: The rollout as it is -> as it shall be; may raise.
            actor: Name of the operator or service that asks for it.
            reason: Stored in the history.

        Raises:
            NotFound: There is no such rollout.
            DeploymentsError: What the edit raises.
            StoreUnavailable: Nothing was changed.
        """
        async with self._controller.writing():
            await self._catch_up()
            return await self._replace(edit(self.rollout(key)), actor, reason)

    async def put(self, make: Callable[[], Rollout], actor: str, reason: str) -> ChangeResult:
        """Make a rollout, or replace one; otherwise as `change`."""
        async with self._controller.writing():
            await self._catch_up()
            return await self._replace(make(), actor, reason)

    async def commit(self, make: Callable[[], Awaitable[Sequence[Draft]]]) -> Delivery | None:
        """Make events that may change any rollout, and commit them together.

        Args:
            make: The state as it is -> the events; none changes nothing. May raise.

        Returns:
            The delivery of the new epoch; None if nothing was changed.

        Raises:
            DeploymentsError: What `make` raises.
            StoreUnavailable: Nothing was changed.
        """
        async with self._controller.writing():
            await self._catch_up()
            drafts = await make()
            return await self._commit(drafts, CommitExtras()) if drafts else None

    def rollout(self, key: Key) -> Rollout:
        """The rollout of a model and candidate.

        Raises:
            NotFound: There is none.
        """
        found = self._controller.state.rollouts.get(key)
        if found is None:
            names = ", ".join(f"{c} ({m})" for m, c in self._controller.state.rollouts) or "none"
            raise NotFound(
                f"found no rollout of {key[1]!r} ({key[0]}), wanted one of: {names}",
                param="candidate",
            )
        return found

    async def close(self) -> None:
        """Wait for the times of the last rollbacks."""
        await self._rollback_timer.close()

    async def _take_pending(self) -> None:
        batch, self._pending = self._pending, []
        try:
            await self._catch_up()
            fresh = await self._drop_stored([pending.report for pending in batch])
            if fresh:
                await self._store_foldable(fresh, batch)
        except BaseException as error:
            # Also if this one was cancelled: the others in the batch must not wait for ever.
            settle(batch, error)
            raise
        settle(batch)

    async def _store_foldable(
        self, reports: Sequence[Report], batch: Sequence[PendingReport]
    ) -> None:
        """Store reports; refuse those that cannot be folded, one by one if need be."""
        try:
            await self._store(reports, [])
        except (UnfoldableReport, ChangeUnfoldable) as error:
            await self._catch_up()  # the evidence holds a part of them
            if len(reports) == 1:
                return pending_reports.refuse(batch, reports[0], error)
            for report in reports:
                await self._store_foldable([report], batch)

    async def _drop_stored(self, reports: Iterable[Report]) -> list[Report]:
        """The reports that are not stored yet, each once."""
        named = {name_of(report): report for report in reports}
        doubtful = self._last_numbers.doubtful(named.values())
        stored: set[tuple[str, str, int]] = set()
        if doubtful:
            stored = await self._controller.on_store_thread(
                lambda store: store.look(lambda c: observation_tables.known(c, doubtful))
            )
        return [report for name, report in named.items() if name not in stored]

    async def _store(self, reports: Sequence[Report], judgements: Sequence[UserFeedback]) -> None:
        # From the first fold on the evidence is ahead of the store.
        self._is_behind = True
        drafts = self.evidence_book.fold_reports(self._controller.state, reports)
        await self._commit(drafts, CommitExtras(reports, judgements))
        self._last_numbers.note(reports)
        self._is_behind = False

    async def _replace(self, rollout: Rollout, actor: str, reason: str) -> ChangeResult:
        state = self._controller.state
        require_readable(state, rollout.spec.model)
        is_changed, delivery = rollout != state.rollouts.get(rollout.key), None
        if is_changed:
            draft = draft_of(state, rollout, actor, reason)
            delivery = await self._commit([draft], CommitExtras())
        found, epoch = self.rollout(rollout.key), self._controller.state.epoch
        return ChangeResult(found, epoch, is_changed, delivery)

    async def _commit(self, drafts: Sequence[Draft], extras: CommitExtras) -> Delivery | None:
        first, began_at = self._controller.state.epoch + 1, self._clocks.monotonic()
        durable_at, delivery = await self._controller.commit(drafts, extras)
        for epoch, draft in enumerate(drafts, start=first):
            payload = draft.payload
            if isinstance(payload, RolloutPayload) and delivery is not None:
                change = CommittedChange(epoch, draft.actor, payload, began_at, durable_at)
                self._rollback_timer.note(change, delivery)
        return delivery

    async def _catch_up(self) -> None:
        if not self._is_behind:
            return
        rollouts, book = [*self._controller.state.rollouts.values()], self.evidence_book
        key = self._controller.checkpoint_key
        self._last_numbers = LastNumbers()
        await self._controller.on_store_thread(
            lambda store: stored_evidence.read(store, key, book, rollouts)
        )
        self._is_behind = False

    async def _prune(self) -> None:
        state, now = self._controller.state, self._clocks.now()
        decided = [*self._controller.metrics.history_counters.decided.values()]
        before = now - self._feedback_lifetime
        deleted = await self._controller.on_store_thread(
            lambda store: stored_evidence.prune(store, state, decided, before, PRUNED_AT_ONCE)
        )
        if deleted < PRUNED_AT_ONCE:
            self._prune_at = now + timedelta(seconds=PRUNE_SECONDS)
