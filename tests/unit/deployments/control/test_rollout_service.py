"""Rollouts from report to decision, on a store, with a clock that the test moves."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from penumbra.deployments.api.rollback_explanation import explain, last_rollback
from penumbra.deployments.control.rollout_service import PRUNE_SECONDS
from penumbra.deployments.errors import AlreadyJudged, Conflict, StoreUnavailable
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.events import Event
from penumbra.deployments.history.state import fold
from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail
from penumbra.deployments.store.observation_tables import CommitExtras, reports
from penumbra.monitoring.observations import RunReport, Signal
from tests.support.control_plane import FakeGateway, split_change
from tests.support.evidence_state import state_of
from tests.support.rollouts import Reporting, aa_pairs, in_batches, pair, pairs, rollout_spec
from tests.support.running_rollouts import KEY, RunningRollouts, running_rollouts

RUNS = ("run-1", "run-2")


async def test_a_rollout_begins_in_shadow_and_is_watched(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        gateway = await it.plane.connect(FakeGateway("g"))
        rollout = await it.apply()
        await gateway.reach(2)
        assert rollout.record.phase is Phase.SHADOW
        watch = gateway.tables[-1].models["demo"].watches[0]
        assert (watch.candidate, watch.run, watch.mirror) == ("int8", "run-1", 1.0)


async def test_a_good_candidate_goes_through_all_stages(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        reporting = Reporting()
        # A pair a second: the stage's minute is over with the 61st.
        for some in in_batches(pairs(60, 0.0), 10):
            await it.rollouts.take_report(reporting.of_pairs("run-1", some))
        assert it.rollout.record.proven == ("other",)
        assert (await it.after(3600)).stage == "shadow"  # time alone is no evidence
        await it.rollouts.take_report(reporting.of_pairs("run-1", pairs(40, 0.0, start=61)))
        assert it.rollout.stage == "10"
        assert it.flag.split == {"int8": 10.0}
        for some in in_batches(pairs(100, 0.0, start=500), 10):
            await it.rollouts.take_report(reporting.of_pairs("run-1", some))
        assert (await it.after(3600)).stage == "10"  # so far the candidate answered no one
        own = pairs(60, 0.0, start=1000, answered_by="int8")
        for some in in_batches(own, 10):
            await it.rollouts.take_report(reporting.of_pairs("run-1", some))
        assert it.rollout.record.proven_live == ("other",)
        assert it.rollout.stage == "10"
        last = pairs(10, 0.0, start=1060, answered_by="int8")
        await it.rollouts.take_report(reporting.of_pairs("run-1", last))
        assert it.rollout.stage == "100"
        assert (await it.after(3600)).stage == "100"
        own = pairs(61, 0.0, start=2000, answered_by="int8")
        await it.rollouts.take_report(reporting.of_pairs("run-1", own))
        assert it.rollout.stage == "promoted"
        assert it.flag.split == {"int8": 100.0}


async def test_answers_of_one_stage_carry_a_rollout_no_further(tmp_path: Path) -> None:
    """They come late: queued, compared and reported when the next stage has begun."""
    async with running_rollouts(tmp_path) as it:
        await it.apply(rollout_spec(stages=("shadow", 1.0, 5.0, 25.0, 45.0)))
        reporting = Reporting()
        await it.rollouts.take_report(reporting.of_pairs("run-1", pairs(100, 0.0)))
        assert it.rollout.stage == "1"
        epoch = it.plane.controller.state.epoch
        own = [
            pair(number, answered_by="int8", epoch=epoch, at=1_767_000_000.0 + 2 * number)
            for number in range(1000, 1400)
        ]
        late = [reporting.of_pairs("run-1", some) for some in in_batches(own, 100)]
        await asyncio.gather(*(it.rollouts.take_report(report) for report in late))
        assert it.rollout.stage == "5"


async def test_nothing_advances_by_pairs_of_another_kind(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        reporting = Reporting()
        await it.rollouts.take_report(reporting.of_pairs("run-1", pairs(100, 0.0)))
        await it.rollouts.change(KEY, lambda it: operator_actions.hold(it, "wait"), "ann", "wait")
        own = pairs(100, 0.0, start=1000, answered_by="int8")
        await it.rollouts.take_report(reporting.of_pairs("run-1", own))
        await it.rollouts.change(KEY, lambda it: operator_actions.resume(it, "on"), "ann", "on")
        for other in (aa_pairs(5, 0.0, start=2000), pairs(5, 0.0, start=3000), own[:5]):
            await it.rollouts.take_report(reporting.of_pairs("run-1", other))
        assert (await it.after(3600)).stage == "10"
        more = pairs(1, 0.0, start=4000, answered_by="int8")
        await it.rollouts.take_report(reporting.of_pairs("run-1", more))
        assert it.rollout.stage == "100"


async def test_a_bad_candidate_is_rolled_back_with_the_report_that_decides(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        gateway = await it.plane.connect(FakeGateway("g"))
        reporting = Reporting()
        for some in in_batches(pairs(40, 0.9), 2):
            await it.rollouts.take_report(reporting.of_pairs("run-1", some))
        assert it.rollout.record.phase is Phase.ROLLED_BACK
        assert it.flag.blocked == ("int8",)
        await it.rollouts.close()
        assert gateway.tables[-1].models["demo"].flag.blocked == ("int8",)
        view = explain(it.plane.store, KEY)
        assert view.is_reproduced
        assert (view.signal, view.recomputed_verdict) == ("displacement", "fail")
        assert view.evidence is not None
        assert view.boundary is not None
        assert view.evidence >= view.boundary == pytest.approx(200)
        assert view.path[-1].evidence == view.evidence
        assert view.pairs < 20
        assert len(view.worst) == view.pairs
        times = last_rollback(it.plane.store, KEY)
        assert times is not None
        assert times.gateways == 1
        assert times.durable_to_acknowledged_ms is not None


async def test_a_report_that_comes_twice_counts_once(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        reporting = Reporting()
        report = reporting.of_pairs("run-1", pairs(5, 0.0))
        await asyncio.gather(it.rollouts.take_report(report), it.rollouts.take_report(report))
        await it.rollouts.take_report(reporting.of_pairs("run-1", pairs(5, 0.0, start=6)))
        await it.rollouts.take_report(report)
        again = it.fresh()
        await again.take_report(report)
        for rollouts in (it.rollouts, again):
            assert rollouts.evidence_book.findings(it.rollout).pairs == 10


async def test_evidence_is_the_same_after_a_restart(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        reporting = Reporting()
        for some in in_batches(pairs(50, 0.21), 7):
            await it.rollouts.take_report(reporting.of_pairs("run-1", some))
        again = it.fresh()
        await again.start()
        found = state_of(again.evidence_book.evidence(it.rollout))
        assert found == state_of(it.rollouts.evidence_book.evidence(it.rollout))


async def test_a_stale_proof_is_an_event_that_a_restart_does_not_repeat(tmp_path: Path) -> None:
    gates = AdvanceRules(pairs=20, slice_pairs=20, horizon=5000, workload_seconds=0.0)
    async with running_rollouts(tmp_path) as it:
        await it.apply(rollout_spec(gates=gates))
        reporting = Reporting()
        then = [pair(number, script="latin") for number in range(300)]
        now = [pair(number, script="han") for number in range(300, 380)]
        for some in in_batches([*then, *now], 20):
            await it.rollouts.take_report(reporting.of_pairs("run-1", some))
        record, epoch = it.rollout.record, it.plane.controller.state.epoch
        assert record.stale["other"].startswith("script: han")
        assert fold(it.plane.store.events()).rollouts[KEY].record == record
        again = it.fresh()
        await again.start()
        await again.decide_pending()
        assert (again.rollout(KEY).record, it.plane.controller.state.epoch) == (record, epoch)
        found = state_of(again.evidence_book.evidence(it.rollout))
        assert found == state_of(it.rollouts.evidence_book.evidence(it.rollout))


@pytest.mark.parametrize("loses_answer", [False, True])
async def test_a_failed_commit_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, loses_answer: bool
) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        reporting = Reporting()
        report = reporting.of_pairs("run-1", pairs(40, 0.9))
        it.plane.store.loses_answers = loses_answer
        it.plane.store.failures.append(StoreUnavailable("the disk is full"))
        with pytest.raises(StoreUnavailable):
            await it.rollouts.take_report(report)
        await it.rollouts.take_report(report)
        assert it.rollout.record.phase is Phase.ROLLED_BACK
        assert it.rollouts.evidence_book.findings(it.rollout).pairs == 40
        assert fold(it.plane.store.events()) == it.plane.controller.state


async def test_reports_of_another_run_are_stored_but_count_for_nothing(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        await it.rollouts.take_report(Reporting().of_pairs("run-0", pairs(40, 0.9)))
        assert it.rollout.record.phase is Phase.SHADOW
        assert it.rollouts.evidence_book.findings(it.rollout).pairs == 0


async def test_only_rearming_ends_a_rollback_and_it_begins_afresh(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        await it.rollouts.take_report(Reporting().of_pairs("run-1", pairs(40, 0.9)))
        await it.apply(rollout_spec(alpha=0.02))
        assert it.rollout.record.phase is Phase.ROLLED_BACK
        state = it.plane.controller
        await it.rollouts.change(
            KEY,
            lambda rollout: operator_actions.rearm(state.state, rollout, "fixed", it.now),
            "ann",
            "fixed",
        )
        assert it.rollout.record.phase is Phase.SHADOW
        assert it.rollout.record.verdict is None
        assert (it.flag.blocked, it.flag.split) == ((), {})
        assert it.rollouts.evidence_book.findings(it.rollout).pairs == 0
        assert explain(it.plane.store, KEY).is_reproduced


async def test_a_flag_under_a_rollout_is_not_changed_by_hand(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        with pytest.raises(Conflict, match="decided by its rollout"):
            await it.plane.controller.apply(split_change(10))


async def test_a_judgement_is_stored_counted_and_final(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        guardrails = (
            Guardrail(signal=Signal.DISPLACEMENT, tolerance=0.2, action="rollback", share=0.5),
            Guardrail(signal=Signal.FEEDBACK, tolerance=0.2, action="hold"),
        )
        await it.apply(rollout_spec(guardrails=guardrails))
        judged = UserFeedback("r1", "t", "demo", "int8", "other", False, None, False, {})
        await it.rollouts.take_feedback(judged)
        await it.rollouts.take_feedback(judged)
        assert it.rollouts.evidence_book.evidence(it.rollout).monitors[Signal.FEEDBACK].count == 1
        with pytest.raises(AlreadyJudged):
            await it.rollouts.take_feedback(
                UserFeedback("r1", "t", "demo", "int8", "other", True, None, False, {})
            )


async def test_a_build_that_changes_begins_the_evidence_anew(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        reporting = Reporting()
        run = reporting.of_pairs("run-1", pairs(5, 0.0)).runs[0].run
        await it.rollouts.take_report(
            reporting.report(RunReport(run, fingerprints={"int8": "a" * 64}))
        )
        await it.rollouts.take_report(
            reporting.report(RunReport(run, fingerprints={"int8": "b" * 64}))
        )
        assert it.rollout.record.run == "run-2"
        assert "int8 is bbbb" in it.rollout.record.cause


async def test_what_waits_for_a_store_that_cannot_be_read_is_not_piled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object, **__: object) -> list[Event]:
        raise StoreUnavailable("the disk is gone")

    async with running_rollouts(tmp_path) as it:
        await it.apply()
        report = Reporting().of_pairs("run-1", pairs(3, 0.0))
        with monkeypatch.context() as broken:
            broken.setattr(it.plane.store, "stored_since", unreadable)
            it.plane.controller.is_behind = True
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await it.rollouts.take_report(report)
        assert it.rollouts.waiting == 0
        await it.rollouts.take_report(report)
        assert it.rollouts.evidence_book.findings(it.rollout).pairs == 3


def stored(it: RunningRollouts, run: str) -> int:
    return it.plane.store.look(lambda c: len(list(reports(c, run))))


async def test_reports_of_runs_that_are_over_are_deleted_while_it_runs(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        reporting = Reporting()
        await it.rollouts.take_report(reporting.of_pairs("run-1", pairs(3, 0.0)))
        await it.apply(rollout_spec(alpha=0.02))
        await it.rollouts.take_report(reporting.of_pairs("run-2", pairs(3, 0.0)))
        assert [stored(it, run) for run in RUNS] == [1, 1]
        await it.after(PRUNE_SECONDS)
        assert [stored(it, run) for run in RUNS] == [0, 1]


async def test_reports_are_read_in_one_query_however_many_there_are(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        reporting = Reporting()
        many = [reporting.of_pairs("run-1", ()) for _ in range(1200)]
        it.plane.store.append([], it.plane.controller.state.epoch, it.now, CommitExtras(many))
        queries: list[str] = []

        def read(connection: sa.Connection) -> list[int]:
            @sa.event.listens_for(connection, "before_cursor_execute")
            def seen(*arguments: object) -> None:
                queries.append(str(arguments[2]))

            return [report.seq for report in reports(connection, "run-1")]

        assert it.plane.store.look(read) == list(range(1, 1201))
        assert len(queries) == 2  # of segments, and of rows
