"""Checkpoints: a start reads them and what came after, and never needs them."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from penumbra.deployments.control import checkpoints
from penumbra.deployments.control.controller import Change, Clocks, Controller
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.evidence import kept_objects
from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.flag_edits import set_killed
from penumbra.deployments.store import observation_tables
from penumbra.deployments.store.verify import repair, verify
from tests.support.control_plane import FlakyStore
from tests.support.evidence_state import state_of
from tests.support.rollouts import Reporting, in_batches, pairs
from tests.support.running_rollouts import RunningRollouts, running_rollouts


@pytest.fixture(autouse=True)
def _events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVENTS", 1)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids after which reports are read."""
    found: list[int] = []
    reports = observation_tables.reports

    def note(*arguments: Any, **named: Any) -> Any:
        found.append(named.get("after", 0))
        return reports(*arguments, **named)

    monkeypatch.setattr(observation_tables, "reports", note)
    return found


async def filled(it: RunningRollouts) -> Reporting:
    """Ten reports, a checkpoint of everything, three more reports."""
    await it.apply()
    reporting = Reporting()
    for some in in_batches(pairs(50, 0.05), 5):
        await it.rollouts.take_report(reporting.of_pairs("run-1", some))
    for _ in range(2):
        await it.after(1)
    for some in in_batches(pairs(15, 0.05, start=100), 5):
        await it.rollouts.take_report(reporting.of_pairs("run-1", some))
    return reporting


async def after_restart(it: RunningRollouts) -> Any:
    again = it.fresh()
    await again.start()
    return state_of(again.evidence_book.evidence(it.rollout))


def evidence(it: RunningRollouts) -> Any:
    return state_of(it.rollouts.evidence_book.evidence(it.rollout))


def execute(it: RunningRollouts, statement: str) -> None:
    it.plane.store.write(lambda c: c.execute(sa.text(statement)))


async def test_a_start_reads_the_reports_after_the_checkpoint(
    tmp_path: Path, read: list[int]
) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        read.clear()
        assert await after_restart(it) == evidence(it)
        assert read == [10]


@pytest.mark.parametrize(
    "statement",
    [
        "update checkpoints set payload = x'00'",
        "update checkpoints set payload = substr(payload, 1, 100)",
        "update checkpoints set version = 'of another release'",
        "delete from checkpoints",
    ],
)
async def test_without_a_checkpoint_all_reports_are_folded(
    tmp_path: Path, read: list[int], statement: str
) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        execute(it, statement)
        read.clear()
        assert await after_restart(it) == evidence(it)
        assert read == [0]


async def test_a_failed_commit_costs_the_reports_after_the_checkpoint(
    tmp_path: Path, read: list[int]
) -> None:
    async with running_rollouts(tmp_path) as it:
        reporting = await filled(it)
        report = reporting.of_pairs("run-1", pairs(5, 0.05, start=200))
        it.plane.store.failures.append(StoreUnavailable("the disk is full"))
        with pytest.raises(StoreUnavailable):
            await it.rollouts.take_report(report)
        read.clear()
        await it.rollouts.take_report(report)
        assert read == [10]
        assert it.rollouts.evidence_book.findings(it.rollout).pairs == 70
        assert await after_restart(it) == evidence(it)


async def test_a_checkpoint_is_written_again_when_it_is_due_and_something_came(
    tmp_path: Path, read: list[int]
) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        for seconds in (1, 1, checkpoints.SECONDS, 1, 1):
            await it.after(seconds)
        read.clear()
        assert await after_restart(it) == evidence(it)
        assert read == [13]


async def test_one_that_cannot_be_stored_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        write = it.plane.store.write

        def fail(work: Any) -> Any:
            if "Checkpoints" in work.__qualname__:
                raise StoreUnavailable("the disk is full")
            return write(work)

        monkeypatch.setattr(it.plane.store, "write", fail)
        await it.rollouts.take_report(Reporting().of_pairs("run-1", pairs(5, 0.0)))
        for _ in range(3):
            await it.after(1)
        assert await after_restart(it) == evidence(it)


def other(folder: Path, it: RunningRollouts) -> Controller:
    """A controller as after a restart: it has only the store."""
    store = FlakyStore(f"sqlite:///{folder / 'penumbra.db'}")
    clocks = Clocks(lambda: it.now, lambda: 0.0)
    found = Controller(store, Publisher(store.identity, clocks.monotonic), clocks, 1.0)
    found.checkpoint_key = it.plane.controller.checkpoint_key
    return found


async def read_anew(folder: Path, it: RunningRollouts) -> tuple[Any, Any, Any]:
    found = other(folder, it)
    await found.follow()
    counters = found.metrics.history_counters
    told = found.state, found.newest, state_of(counters)
    found.close()
    return told


async def test_a_start_needs_no_events_of_before_the_checkpoint(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        kill = Change(Kind.KILL, "ann", "stop", {"demo": set_killed(True)})
        await it.plane.controller.apply(kill)
        controller = it.plane.controller
        counters = state_of(controller.metrics.history_counters)
        expected = controller.state, controller.newest, counters
        assert await read_anew(tmp_path, it) == expected
        execute(it, "delete from events where epoch < 2")
        assert await read_anew(tmp_path, it) == expected
        execute(it, "delete from checkpoints where name = 'state'")
        assert await read_anew(tmp_path, it) != expected


async def test_a_repair_leaves_no_checkpoint(tmp_path: Path, read: list[int]) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        store = it.plane.store
        repair(store, verify(store), "ann", it.now)
        read.clear()
        assert await after_restart(it) == evidence(it)
        assert read == [0]


async def test_a_checkpoint_of_a_state_that_the_store_has_lost_is_not_used(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        before = it.plane.controller.state.epoch
        execute(it, "delete from events where epoch = (select max(epoch) from events)")
        state, newest, _ = await read_anew(tmp_path, it)
        assert (state.epoch, newest.epoch) == (before - 1, before - 1)


async def test_one_of_another_installation_is_not_read(tmp_path: Path, read: list[int]) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        it.plane.controller.checkpoint_key = b"another key"
        read.clear()
        assert await after_restart(it) == evidence(it)
        assert read == [0]


async def test_one_that_does_not_go_on_is_left(tmp_path: Path, read: list[int]) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        lacking = evidence_of(it.rollout)
        del lacking.totals
        key = it.plane.controller.checkpoint_key
        payload = kept_objects.pack(kept_objects.dump(lacking), key)
        it.plane.store.write(
            lambda c: c.execute(sa.text("update checkpoints set payload = :it"), {"it": payload})
        )
        read.clear()
        assert await after_restart(it) == evidence(it)
        assert read == [10, 0]


async def test_a_start_deletes_no_checkpoint_of_another_run(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await filled(it)
        names = sa.text("select count(*) from checkpoints")
        before = it.plane.store.look(lambda c: c.execute(names).scalar())
        again = it.fresh()
        await again.start()
        await again.keep_house()
        assert it.plane.store.look(lambda c: c.execute(names).scalar()) == before == 2
