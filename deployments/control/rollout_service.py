"""Keeps all rollouts: makes reports durable, decides, commits what follows, times the rollbacks.

A report and the rollback that it causes are one transaction: there is no moment at which the one
is known and the other is not. Reports that arrive while another commit is under way share the next.

Should a commit fail, nobody knows whether it happened: evidence is folded anew from the store
before anything else is decided.

Reading order: RolloutService.take, RolloutService.tick, RolloutService.change.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.rollback_timer import RollbackTimer
from penumbra.deployments.errors import AlreadyJudged, NotFound
from penumbra.deployments.evidence.judge import (
    EvidenceBook,
    name_of,
    report_of_feedback,
    runs_to_keep,
)
from penumbra.deployments.history.config_effects import draft_of
from penumbra.deployments.history.events import Draft
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.deployments.rollouts.payload import RolloutPayload, takes_away
from penumbra.deployments.rollouts.record import Key, Phase, Rollout
from penumbra.deployments.store import observation_tables
from penumbra.deployments.store.observation_tables import CommitExtras
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import Report

PRUNE_SECONDS = 3600.0
"""How often what is of no use any more is deleted; also at the start."""

Name = tuple[str, str, int]
Edit = Callable[[Rollout], Rollout]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    report: Report
    done: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """What came of an operator's change."""

    rollout: Rollout
    epoch: int
    is_changed: bool


class RolloutService:
    """All rollouts of one control process.

    Args:
        controller: Started before `start`.
        clocks: Time.
        acknowledge_seconds: For how long a rollback waits for the gateways' acknowledgements.
        incarnation: Of this process; unique.
        feedback_days: For how long users' judgements are kept.
    """

    def __init__(
        self,
        controller: Controller,
        clocks: Clocks,
        acknowledge_seconds: float,
        process_start_id: str,
        feedback_days: int = 30,
    ) -> None:
        self._controller = controller
        self._clocks = clocks
        self._process_start_id = process_start_id
        self._feedback_kept = timedelta(days=feedback_days)
        self._pruned_at = clocks.now()
        self._book = EvidenceBook(clocks.now)
        self._is_behind = True
        """The store may hold more than the evidence: not started yet, or a commit failed."""
        self._pending: list[_Waiting] = []
        self._last: dict[tuple[str, str], int] = {}
        """(source, incarnation) -> the last report that was stored since the evidence was read."""
        self._judgements = 0
        self.rollback_timer = RollbackTimer(controller, clocks, acknowledge_seconds)

    @property
    def waiting(self) -> int:
        """Reports that are not durable yet."""
        return len(self._pending)

    @property
    def bench(self) -> EvidenceBook:
        """The evidence, to look at."""
        return self._book

    async def start(self) -> None:
        """Delete what is of no use any more, and fold the stored reports.

        Raises:
            StoreUnavailable: The store cannot be read or written.
        """
        async with self._controller.writing():
            await self._prune()
            await self._catch_up()
            await self.rollback_timer.load()

    async def take(self, report: Report) -> None:
        """Take a report; when this returns it is durable, and so is what it causes.

        One that is stored already changes nothing.

        Raises:
            StoreUnavailable: It is not stored, or the store does not say so: to be sent again.
        """
        waiting = _Waiting(report, asyncio.get_running_loop().create_future())
        self._pending.append(waiting)
        try:
            async with self._controller.writing():
                if not waiting.done.done():
                    await self._take_pending()
        finally:
            # Whoever could not wait, or not even begin, sends it again.
            self._pending = [one for one in self._pending if one is not waiting]
        await waiting.done

    async def judge(self, judgement: UserFeedback) -> None:
        """Take a user's judgement: stored, and counted if its variant is under a rollout.

        Raises:
            AlreadyJudged: The request was judged differently before.
            StoreUnavailable: It is not stored, or the store does not say so.
        """
        async with self._controller.writing():
            await self._catch_up()
            found = await self._controller.write(
                lambda store: store.look(
                    lambda c: observation_tables.judgement(
                        c, judgement.tenant, judgement.request_id
                    )
                )
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

    async def tick(self) -> None:
        """Do what the time alone makes due.

        Raises:
            StoreUnavailable: What is due could not be stored.
        """
        async with self._controller.writing():
            await self._catch_up()
            drafts = self._book.reconsider(self._controller.state)
            if drafts:
                await self._commit(drafts, CommitExtras())
            if self._clocks.now() - self._pruned_at >= timedelta(seconds=PRUNE_SECONDS):
                await self._prune()

    async def change(self, key: Key, edit: Edit, actor: str, reason: str) -> ChangeResult:
        """An operator changes a rollout.

        Args:
            key: (model, candidate).
            edit: The rollout as it is -> as it shall be; may raise.
            actor: Who.
            reason: Why.

        Raises:
            NotFound: There is no such rollout.
            DeploymentsError: What the edit raises.
            StoreUnavailable: Nothing was changed.
        """
        async with self._controller.writing():
            await self._catch_up()
            return await self._edited(edit(self.rollout(key)), actor, reason)

    async def put(self, make: Callable[[], Rollout], actor: str, reason: str) -> ChangeResult:
        """An operator makes a rollout, or replaces one; else as `change`."""
        async with self._controller.writing():
            await self._catch_up()
            return await self._edited(make(), actor, reason)

    def rollout(self, key: Key) -> Rollout:
        """One rollout.

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
        await self.rollback_timer.close()

    async def _take_pending(self) -> None:
        batch, self._pending = self._pending, []
        try:
            await self._catch_up()
            fresh = await self._fresh([one.report for one in batch])
            if fresh:
                await self._store(fresh, [])
        except BaseException as error:
            # Also if this one was cancelled: the others in the batch must not wait for ever.
            for one in batch:
                if not one.done.done():
                    one.done.set_exception(_as_failure(error))
                    one.done.exception()  # looked at, also if nobody waits for it any more
            raise
        for one in batch:
            if not one.done.done():
                one.done.set_result(None)

    async def _fresh(self, reports: Iterable[Report]) -> list[Report]:
        """Those that are not stored, each once."""
        named = {name_of(report): report for report in reports}
        doubtful = [
            report
            for report in named.values()
            if report.seq <= self._last.get((report.source, report.process_start_id), report.seq)
        ]
        stored: set[Name] = set()
        if doubtful:
            stored = await self._controller.write(
                lambda store: store.look(lambda c: observation_tables.known(c, doubtful))
            )
        return [report for name, report in named.items() if name not in stored]

    async def _store(self, reports: Sequence[Report], judgements: Sequence[UserFeedback]) -> None:
        # From the first fold on the evidence is ahead of the store.
        self._is_behind = True
        drafts = self._book.hear(self._controller.state, reports)
        await self._commit(drafts, CommitExtras(reports, judgements))
        for report in reports:
            self._last[report.source, report.process_start_id] = report.seq
        self._is_behind = False

    async def _edited(self, rollout: Rollout, actor: str, reason: str) -> ChangeResult:
        state = self._controller.state
        is_changed = rollout != state.rollouts.get(rollout.key)
        if is_changed:
            await self._commit([draft_of(state, rollout, actor, reason)], CommitExtras())
        return ChangeResult(self.rollout(rollout.key), self._controller.state.epoch, is_changed)

    async def _commit(self, drafts: Sequence[Draft], beside: CommitExtras) -> None:
        first, began = self._controller.state.epoch + 1, self._clocks.monotonic()
        durable_at, delivery = await self._controller.commit(drafts, beside)
        for epoch, draft in enumerate(drafts, start=first):
            payload = draft.payload
            if isinstance(payload, RolloutPayload) and delivery is not None:
                context = self.rollback_timer.note(epoch, draft.actor, payload, (began, durable_at))
                if takes_away(payload):
                    self.rollback_timer.start(epoch, payload, durable_at, delivery, context)

    async def _catch_up(self) -> None:
        if not self._is_behind:
            return
        rollouts = list(self._controller.state.rollouts.values())
        runs = [one.record.run for one in rollouts if one.record.phase is not Phase.OFF]
        self._last = {}

        def fold(store: Store) -> None:
            store.look(lambda c: self._book.begin(rollouts, observation_tables.reports(c, runs)))

        await self._controller.write(fold)
        self._is_behind = False

    async def _prune(self) -> None:
        self._pruned_at = self._clocks.now()
        rollouts = self._controller.state.rollouts.values()
        before = self._pruned_at - self._feedback_kept

        def prune(store: Store) -> None:
            keep = runs_to_keep(rollouts, store.events())
            store.write(lambda c: observation_tables.prune(c, keep, before))

        await self._controller.write(prune)


def _as_failure(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError("the commit was cancelled")
