"""Builds that go on changing: restarts back off, then the rollout is held until all agree."""

from datetime import timedelta
from pathlib import Path

from penumbra.deployments.history import operator_actions
from penumbra.deployments.rollouts.rebuilds import LONGEST_WAIT, MOST_RESTARTS, wait_before
from penumbra.deployments.rollouts.record import Phase
from penumbra.monitoring.build_facts import digest
from penumbra.monitoring.observations import Run, RunReport
from tests.support.rollouts import Reporting, in_batches, pairs, rollout_spec
from tests.support.running_rollouts import KEY, RunningRollouts, running_rollouts

ONE, OTHER = {"weights": "w1", "engine": "1"}, {"weights": "w2", "engine": "1"}


class Comparators:
    """Two comparators that read the candidate's build, each in its own way."""

    def __init__(self, it: RunningRollouts) -> None:
        self._it = it
        self._reporting = {
            "first": Reporting("comparator-0", "1111aaaa"),
            "second": Reporting("comparator-0", "2222bbbb"),
        }
        self._told: dict[tuple[str, str], dict[str, str]] = {}

    async def read(self, first: dict[str, str], second: dict[str, str]) -> None:
        """Have both report, as they do, what is new to them in the present run."""
        for name, facts in (("first", first), ("second", second)):
            run = self._it.rollout.record.run
            if self._told.get((name, run)) == facts:
                continue
            self._told[name, run] = facts
            report = RunReport(
                Run("demo", "int8", run),
                fingerprints={"int8": digest(facts)},
                builds={"int8": facts},
            )
            await self._it.rollouts.take_report(self._reporting[name].report(report))

    async def disagree_for(self, hours: float) -> None:
        """Disagree, and report every second at first, then every minute."""
        end = self._it.now + timedelta(hours=hours)
        step = 1.0
        while self._it.now < end:
            await self.read(ONE, OTHER)
            await self._it.after(step)
            step = min(60.0, step * 1.05)


async def test_two_comparators_that_disagree_restart_the_run_a_few_times_and_then_hold_it(
    tmp_path: Path,
) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        before = it.plane.controller.state.epoch
        await Comparators(it).disagree_for(24)
        changes = it.plane.controller.state.epoch - before
        record = it.rollout.record
        assert changes <= 3 * MOST_RESTARTS
        assert record.held is not None
        assert record.held.by == "guard"
        for told in ("1111aaaa", "2222bbbb", digest(ONE)[:16], digest(OTHER)[:16]):
            assert told in record.held.cause
        assert (record.phase, record.run) == (Phase.SHADOW, f"run-{MOST_RESTARTS + 1}")


async def test_a_run_that_was_held_begins_anew_once_the_comparators_agree(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        comparators = Comparators(it)
        await comparators.disagree_for(1)
        held = it.rollout.record.run
        it.rollouts = it.fresh()
        await it.rollouts.start()
        await comparators.read(OTHER, OTHER)
        await it.after(60)
        record = it.rollout.record
        assert (record.held, record.run != held) == (None, True)
        epoch = it.plane.controller.state.epoch
        await comparators.read(OTHER, OTHER)
        await it.after(3600)
        assert it.plane.controller.state.epoch <= epoch + 1  # the builds were identified
        assert it.rollout.record.run == record.run


async def test_a_run_that_was_held_begins_anew_when_an_operator_resumes_it(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        comparators = Comparators(it)
        await comparators.disagree_for(1)
        held = it.rollout.record.run
        await it.rollouts.change(
            KEY, lambda rollout: operator_actions.resume(rollout, "look again"), "ann", "look"
        )
        await it.after(1)
        assert it.rollout.record.run != held
        epoch = it.plane.controller.state.epoch
        await comparators.disagree_for(1)
        assert it.rollout.record.held is not None
        assert it.plane.controller.state.epoch - epoch <= 3 * MOST_RESTARTS


async def test_a_live_share_is_taken_back_at_once_however_often_the_builds_have_changed(
    tmp_path: Path,
) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply(rollout_spec(stages=("shadow", 100.0)))
        comparators = Comparators(it)
        for facts in (ONE, OTHER, ONE, OTHER):
            await comparators.read(facts, facts)
            await it.after(20)
        assert it.rollout.record.rebuilds == 3
        run, reporting = it.rollout.record.run, Reporting("comparator-1")
        for some in in_batches(pairs(100, 0.0), 10):
            await it.rollouts.take_report(reporting.of_pairs(run, some))
        await it.after(60)
        assert it.flag.split == {"int8": 100.0}
        await comparators.read(ONE, ONE)
        assert it.flag.split == {}
        assert it.rollout.record.phase is Phase.SHADOW


def test_the_wait_before_a_restart_doubles_up_to_an_hour() -> None:
    waits = [wait_before(count).total_seconds() for count in range(8)]
    assert waits == [0, 1, 2, 4, 8, 16, 32, 64]
    assert wait_before(10**9) == LONGEST_WAIT
