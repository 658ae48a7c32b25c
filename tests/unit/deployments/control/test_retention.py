"""Retention: old reports of a run that goes on are deleted, and its evidence stays what it was."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from penumbra.deployments.api.rollback_explanation import explain
from penumbra.deployments.control import compaction
from penumbra.deployments.control.retention import Lifetimes
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.evidence import kept_objects
from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.rollouts.spec import AdvanceRules, RolloutSpec
from penumbra.deployments.store import base_table
from penumbra.deployments.store.verify import repair, verify
from penumbra.monitoring.observations import Pair, Report, Run, RunReport
from tests.support import running_rollouts as running
from tests.support.evidence_state import state_of
from tests.support.rollouts import NOW, Reporting, pairs, rollout_spec
from tests.support.running_rollouts import KEY, RunningRollouts, running_rollouts

DAYS = 0.1
SECONDS = DAYS * 86_400
PAGE = 4


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    made = functools.partial(RolloutService, lifetimes=Lifetimes(report_days=DAYS))
    monkeypatch.setattr(running, "RolloutService", made)
    monkeypatch.setattr(compaction, "PAGE", PAGE)


class Traffic:
    """Reports of five pairs each, of prompts of their own, as old as the test's clock says."""

    def __init__(self, it: RunningRollouts) -> None:
        self._it = it
        self._reporting = Reporting()
        self._prompts = 0
        self.sent: list[Report] = []

    async def report(self, count: int, displacement: float, **changes: Any) -> None:
        for _ in range(count):
            some = pairs(5, displacement, start=self._prompts + 1, **changes)
            self._prompts += 5
            await self.take(some)

    async def take(self, some: tuple[Pair, ...], **changes: Any) -> None:
        run = Run("demo", "int8", self._it.rollout.record.run)
        report = self._reporting.report(RunReport(run, pairs=some, **changes))
        await self._it.rollouts.take_report(report)
        self.sent.append(report)
        # The controller has another clock than the test.
        last = sa.text("update reports set at = :at where id = (select max(id) from reports)")
        at = {"at": self._it.now.isoformat()}
        self._it.plane.store.write(lambda c: c.execute(last, at))


async def an_hour(it: RunningRollouts) -> None:
    """Let an hour pass, with some ticks in which everything that is due is done."""
    for seconds in (3500.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 30.0):
        await it.after(seconds)


def execute(it: RunningRollouts, statement: str) -> None:
    it.plane.store.write(lambda c: c.execute(sa.text(statement)))


def size(it: RunningRollouts) -> dict[str, int]:
    tables = ("reports", "report_segments", "evidence_bases", "checkpoints")
    found = {}
    for table in tables:
        query = sa.select(sa.func.count()).select_from(sa.table(table))
        found[table] = it.plane.store.look(lambda c, query=query: c.execute(query).scalar() or 0)
    return found


def used(it: RunningRollouts) -> int:
    run = it.rollout.record.run
    return it.plane.store.look(lambda c: base_table.used_position(c, run))


async def restarted(it: RunningRollouts) -> RolloutService:
    again = it.fresh()
    await again.start()
    return again


def evidence(rollouts: RolloutService, it: RunningRollouts) -> Any:
    return state_of(rollouts.evidence_book.evidence(it.rollout))


LONG = AdvanceRules(pairs=20, slice_pairs=20, stage_seconds=60.0, stage_pairs=20, horizon=100_000)


@asynccontextmanager
async def aged(
    folder: Path, spec: RolloutSpec | None = None, *, hours: int = 6
) -> AsyncIterator[tuple[RunningRollouts, Traffic]]:
    """A run of some hours, with ten reports in each; the oldest of them are deleted."""
    async with running_rollouts(folder) as it:
        await it.apply(spec or rollout_spec(gates=LONG))
        traffic = Traffic(it)
        for _ in range(hours):
            await traffic.report(10, 0.05)
            await an_hour(it)
        assert used(it) > 0
        yield it, traffic


@pytest.mark.parametrize("has_checkpoint", [True, False])
async def test_evidence_is_the_same_after_a_restart(tmp_path: Path, has_checkpoint: bool) -> None:
    async with aged(tmp_path) as (it, traffic):
        if not has_checkpoint:
            execute(it, "delete from checkpoints")
        assert evidence(await restarted(it), it) == evidence(it.rollouts, it)
        assert it.rollouts.evidence_book.findings(it.rollout).pairs == 5 * len(traffic.sent)


async def test_the_store_does_not_grow_with_the_age_of_a_run(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, traffic):
        sizes = []
        for _ in range(12):
            await traffic.report(10, 0.05)
            await an_hour(it)
            sizes.append(size(it))
        for table, most in (("reports", 20), ("report_segments", 12), ("evidence_bases", 7)):
            found = [each[table] for each in sizes]
            assert max(found) <= most, (table, found)
            assert max(found[6:]) <= max(found[:6]), (table, found)


async def test_reports_stay_for_the_time_that_is_set(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, traffic):
        await traffic.report(4, 0.05)
        youngest = it.plane.store.look(
            lambda c: c.execute(sa.text("select min(at) from report_segments")).scalar()
        )
        age = (it.now - NOW.fromisoformat(youngest)).total_seconds()
        assert SECONDS <= age <= 1.25 * SECONDS + 3600


async def test_a_report_that_is_sent_again_counts_once(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, traffic):
        again = await restarted(it)
        for report in traffic.sent:
            await again.take_report(report)
        assert evidence(again, it) == evidence(it.rollouts, it)


async def test_without_a_key_nothing_is_deleted(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        it.plane.controller.checkpoint_key = None
        await it.apply(rollout_spec(gates=LONG))
        traffic = Traffic(it)
        for _ in range(6):
            await traffic.report(10, 0.05)
            await an_hour(it)
        assert used(it) == 0
        assert evidence(await restarted(it), it) == evidence(it.rollouts, it)


async def test_a_run_that_is_over_leaves_no_base(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, _):
        await it.apply(rollout_spec(alpha=0.02, gates=LONG))
        await it.after(4000)
        await it.after(10)
        runs = it.plane.store.look(
            lambda c: {*c.execute(sa.text("select run from evidence_bases")).scalars()}
        )
        assert runs <= {it.rollout.record.run}


LOST = [
    "update evidence_bases set shape = 'of another release'",
    "update evidence_bases set payload = x'00'",
]


async def lose(it: RunningRollouts, statement: str = LOST[0]) -> RolloutService:
    """Restart without a checkpoint, and with a base that cannot be read."""
    execute(it, "delete from checkpoints")
    execute(it, statement)
    again = await restarted(it)
    await again.decide_pending()
    it.rollouts = again
    return again


@pytest.mark.parametrize("statement", LOST)
async def test_a_run_whose_base_is_lost_begins_anew_in_shadow(
    tmp_path: Path, statement: str
) -> None:
    async with aged(tmp_path) as (it, traffic):
        assert it.rollout.record.phase is Phase.LIVE
        await lose(it, statement)
        after = it.rollout.record
        assert (after.phase, after.run) == (Phase.SHADOW, "run-2")
        assert "reports were pruned, and what stands for them is lost" in after.cause
        assert it.flag.split == {}
        await traffic.report(30, 0.9)
        assert it.rollout.record.phase is Phase.ROLLED_BACK
        assert explain(it.plane.store, KEY, it.plane.controller.checkpoint_key).is_reproduced


async def test_a_base_that_does_not_go_on_is_a_lost_one(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, _):
        lacking = evidence_of(it.rollout)
        del lacking.totals
        payload = kept_objects.pack(kept_objects.dump(lacking), b"a key of the tests")
        change = sa.text("update evidence_bases set payload = :it")
        it.plane.store.write(lambda c: c.execute(change, {"it": payload}))
        await lose(it, "delete from checkpoints")
        assert it.rollout.record.run == "run-2"


async def test_a_clock_that_was_ahead_for_a_while_leaves_no_pile_of_bases(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, traffic):
        before = size(it)["evidence_bases"]
        it.now += timedelta(days=365)
        await traffic.report(2, 0.05)
        await it.after(61)
        await it.after(61)
        it.now -= timedelta(days=365)
        it.rollouts = await restarted(it)
        for _ in range(10):
            await traffic.report(1, 0.05)
            await it.after(61)
            await it.after(61)
        assert size(it)["evidence_bases"] <= before + 1
        await traffic.report(2, 0.05)
        assert evidence(await restarted(it), it) == evidence(it.rollouts, it)


async def test_a_repair_keeps_the_base_that_stands_for_deleted_reports(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, _):
        store = it.plane.store
        repair(store, verify(store), "ann", it.now)
        assert size(it)["evidence_bases"] == 1
        assert evidence(await restarted(it), it) == evidence(it.rollouts, it)


async def test_a_rollback_after_the_base_is_computed_anew(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, traffic):
        await traffic.report(60, 0.9, answered_by="int8")
        assert it.rollout.record.phase is Phase.ROLLED_BACK
        found = explain(it.plane.store, KEY, it.plane.controller.checkpoint_key)
        assert (found.is_reproduced, found.is_pruned) == (True, False)
        assert found.pruned_before is not None
        for _ in range(8):  # what a rollback is explained by stays
            await an_hour(it)
        assert explain(it.plane.store, KEY, it.plane.controller.checkpoint_key) == found


async def test_a_rollback_whose_base_is_lost_is_said_to_be_pruned(tmp_path: Path) -> None:
    async with aged(tmp_path) as (it, traffic):
        await traffic.report(60, 0.9, answered_by="int8")
        found = explain(it.plane.store, KEY, b"another key")
        assert (found.is_reproduced, found.is_pruned) == (None, True)
        assert found.recomputed_verdict is None
        assert found.signal == "displacement"
        assert found.pairs > 300
