"""Compaction: old reports take little room, and are still the reports that were stored."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from penumbra.deployments.api.rollback_explanation import explain
from penumbra.deployments.control import compaction
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.store import segment_tables
from penumbra.deployments.store.observation_tables import reports
from penumbra.deployments.store.verify import verify
from penumbra.monitoring.observations import Report
from tests.support.evidence_state import state_of
from tests.support.rollouts import Reporting, in_batches, pairs
from tests.support.running_rollouts import KEY, RunningRollouts, running_rollouts

RUN = "run-1"
PAGE = 4
OLD = compaction.AFTER_SECONDS + 1


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "PAGE", PAGE)


async def filled(it: RunningRollouts, value: float = 0.05) -> list[Report]:
    """Ten reports of a run, of five pairs each."""
    await it.apply()
    reporting = Reporting()
    sent = [reporting.of_pairs(RUN, some) for some in in_batches(pairs(50, value), 5)]
    for report in sent:
        await it.rollouts.take_report(report)
    # The controller's clock is not the test's.
    execute(it, "update reports set at = '2026-01-01T00:00:00+00:00'")
    return sent


async def ticks(it: RunningRollouts, *, after: float = OLD, count: int = 4) -> None:
    for number in range(count):
        await it.after(0.1 if number else after)


def count(it: RunningRollouts, table: str) -> int:
    query = sa.select(sa.func.count()).select_from(sa.table(table))
    return it.plane.store.look(lambda c: c.execute(query).scalar() or 0)


def stored(it: RunningRollouts) -> list[Report]:
    return it.plane.store.look(lambda c: [*reports(c, RUN)])


def execute(it: RunningRollouts, statement: str) -> None:
    it.plane.store.write(lambda c: c.execute(sa.text(statement)))


def evidence(rollouts: RolloutService, it: RunningRollouts) -> Any:
    return state_of(rollouts.evidence_book.evidence(it.rollout))


async def restarted(it: RunningRollouts) -> RolloutService:
    again = it.fresh()
    await again.start()
    return again


async def test_old_reports_are_segments_and_read_as_they_were(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        sent = await filled(it)
        await ticks(it, after=1)
        assert (count(it, "reports"), count(it, "report_segments")) == (10, 0)
        await ticks(it)
        # The last page is not full, and the newest row stays for its id.
        assert (count(it, "reports"), count(it, "report_segments")) == (2, 2)
        assert stored(it) == sent
        for after in (0, 3, 4, 9):
            found = it.plane.store.look(lambda c, after=after: [*reports(c, RUN, after=after)])
            assert found == sent[after:]
        until = ("comparator", "life-1", 6)
        assert it.plane.store.look(lambda c: [*reports(c, RUN, until)]) == sent[:6]
        assert verify(it.plane.store).is_whole


@pytest.mark.parametrize("has_checkpoint", [True, False])
async def test_evidence_is_the_same_after_a_restart(tmp_path: Path, has_checkpoint: bool) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        await ticks(it)
        if not has_checkpoint:
            execute(it, "delete from checkpoints")
        again = await restarted(it)
        assert evidence(again, it) == evidence(it.rollouts, it)


async def test_a_report_that_is_sent_again_counts_once(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        sent = await filled(it)
        await ticks(it)
        again = await restarted(it)
        for report in sent:
            await again.take_report(report)
        assert stored(it) == sent
        assert evidence(again, it) == evidence(it.rollouts, it)


async def test_a_rollback_is_explained_from_segments(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it, 0.9)
        assert it.rollout.record.phase is Phase.ROLLED_BACK
        before = explain(it.plane.store, KEY)
        await ticks(it)
        assert count(it, "report_segments") == 2
        after = explain(it.plane.store, KEY)
        assert after == before
        assert after.is_reproduced


async def test_a_report_of_two_runs_stays_until_both_have_it_in_a_segment(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        sent = await filled(it)
        rows = "insert into report_runs select 'run-9', id from reports where id <= 3"
        execute(it, rows)

        def compact(connection: sa.Connection, run: str, most: int) -> None:
            found = segment_tables.page(connection, run, it.now + timedelta(days=1), most)
            assert found is not None
            segment_tables.replace(connection, found, segment_tables.pack(found))

        for run, most, left in ((RUN, PAGE, 9), ("run-9", 3, 6)):
            it.plane.store.write(lambda c, run=run, most=most: compact(c, run, most))
            assert count(it, "reports") == left
            assert stored(it) == sent
            assert it.plane.store.look(lambda c: [*reports(c, "run-9")]) == sent[:3]


async def test_a_damaged_segment_begins_its_run_anew(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        await ticks(it)
        execute(it, "delete from checkpoints")
        execute(it, "update report_segments set payload = x'0011' where first = 1")
        [(run, first, _)] = verify(it.plane.store).bad_segments
        assert (run, first) == (RUN, 1)
        again = await restarted(it)
        await again.decide_pending()
        assert again.rollout(KEY).record.run == "run-2"


@pytest.mark.parametrize("at_once", [1, 20])
async def test_segments_of_runs_that_are_over_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(segment_tables, "_DROPPED", at_once)
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        await ticks(it)
        await it.rollouts.put(lambda: _anew(it), "ann", "again")
        await ticks(it, after=4000)
        assert count(it, "report_segments") == 0


async def test_large_reports_make_smaller_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_rollouts(tmp_path) as it:
        sent = await filled(it)
        query = sa.text("select min(length(payload)) from reports")
        size = it.plane.store.look(lambda c: c.execute(query).scalar())
        monkeypatch.setattr(segment_tables, "_PAGE_CHARS", 2 * size - 1)
        await ticks(it, count=8)
        assert count(it, "report_segments") == 3
        assert stored(it) == sent


async def test_a_segment_that_cannot_be_stored_ends_no_lease(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        columns = "insert into report_segments (run, first, last, reports, at, payload)"
        execute(it, f"{columns} values ('{RUN}', 1, 4, 4, '', x'00')")
        it.now += timedelta(seconds=OLD)
        await it.rollouts.decide_pending()  # the tick does not know of it
        with pytest.raises(StoreUnavailable):
            await it.rollouts.keep_house()


def _anew(it: RunningRollouts) -> Any:
    record = it.rollout.record.model_copy(update={"run": "run-2"})
    return it.rollout.model_copy(update={"record": record})
