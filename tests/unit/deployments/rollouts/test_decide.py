"""Decisions on a rollout: single cases, and a state machine that checks invariants."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penumbra.deployments.errors import Conflict
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.config_effects import draft_of
from penumbra.deployments.history.state import EMPTY, State
from penumbra.deployments.rollouts.arbitrate import LONGEST_ARBITRATION, MOST_AA_PAIRS
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.findings import AGGREGATE, Findings, Flow, HardFailure, Tripped
from penumbra.deployments.rollouts.flag_effects import flag_after, watch_of
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import (
    SERVING,
    WATCHED,
    Arbitration,
    Hold,
    Phase,
    Rollout,
    RolloutRecord,
    Verdict,
)
from penumbra.deployments.rollouts.transitions import StepKind
from penumbra.router.flags.routing_table import Flag
from tests.support.rollouts import NOW, rollout_spec

SLICES = ("json", "other")
SPEC = rollout_spec(stages=("shadow", 5.0, 50.0, 100.0))
GATES = SPEC.gates

RECORD = RolloutRecord(
    phase=Phase.SHADOW, since=NOW, run="run-1", slices=SLICES, cause="applied", is_counted=True
)
ENOUGH = Flow(GATES.stage_seconds, GATES.stage_pairs)
PROVEN = Findings(
    run="run-1",
    pairs=GATES.pairs,
    flow=ENOUGH,
    seen=SLICES,
    proven=SLICES,
    is_aggregate_proven=True,
)
LATER = NOW + timedelta(seconds=GATES.stage_seconds)


def tripped(signal: str = "displacement", action: str = "rollback") -> Tripped:
    return Tripped(signal, action, 300.0, 200.0, ("json",), "json")  # type: ignore[arg-type]


def test_advances_when_everything_is_there() -> None:
    record, steps = decide(SPEC, RECORD, PROVEN, LATER)
    assert (record.phase, record.stage_index, record.verdict) == (Phase.LIVE, 1, Verdict.PASS)
    assert [step.did for step in steps] == [StepKind.RELEASE, StepKind.PASS, StepKind.ADVANCE]


@pytest.mark.parametrize(
    "findings",
    [
        replace(PROVEN, pairs=GATES.pairs - 1),
        replace(PROVEN, proven=("json",)),
        replace(PROVEN, proven=()),
        replace(PROVEN, is_aggregate_proven=False),
        replace(PROVEN, missing_ratio=0.06),
        replace(PROVEN, broken="the baseline differs from itself"),
        replace(PROVEN, run="run-0"),
        replace(PROVEN, pairs=GATES.horizon),
        replace(PROVEN, flow=replace(ENOUGH, seconds=GATES.stage_seconds - 1)),
        replace(PROVEN, flow=replace(ENOUGH, pairs=GATES.stage_pairs - 1)),
        replace(PROVEN, flow=Flow()),
    ],
)
def test_does_not_advance_when_anything_is_missing(findings: Findings) -> None:
    record, _ = decide(SPEC, RECORD, findings, NOW + timedelta(days=1000))
    assert (record.phase, record.stage_index) == (Phase.SHADOW, 0)


def test_a_held_rollout_and_one_with_a_live_rival_do_not_advance() -> None:
    held = RECORD.model_copy(update={"held": Hold(by="operator", cause="wait")})
    assert decide(SPEC, held, PROVEN, LATER)[0].phase is Phase.SHADOW
    assert decide(SPEC, RECORD, PROVEN, LATER, "int4")[0].phase is Phase.SHADOW


def test_undecided_at_the_horizon_is_inconclusive_and_held() -> None:
    late = Findings(run="run-1", pairs=GATES.horizon, seen=SLICES)
    record, _ = decide(SPEC, RECORD, late, LATER)
    assert record.verdict is Verdict.INCONCLUSIVE
    assert record.held is not None
    # Proofs that come later do not turn it into a pass, nor does resuming.
    record = operator_actions.resume(Rollout(spec=SPEC, record=record), "on").record
    record, _ = decide(SPEC, record, replace(PROVEN, pairs=GATES.horizon + 1), LATER)
    assert (record.verdict, record.phase) == (Verdict.INCONCLUSIVE, Phase.SHADOW)


def test_a_broken_instrument_freezes_quality_but_not_failures() -> None:
    broken = replace(PROVEN, broken="self-test", tripped=(tripped(),))
    record, steps = decide(SPEC, RECORD, broken, LATER)
    assert (record.phase, record.verdict) == (Phase.SHADOW, Verdict.ERROR)
    assert [step.did for step in steps] == [StepKind.FREEZE]
    failing = replace(broken, tripped=(tripped("failure"),))
    assert decide(SPEC, record, failing, LATER)[0].phase is Phase.ROLLED_BACK
    hard = replace(broken, hard=HardFailure("not_finite", "NaN"))
    assert decide(SPEC, record, hard, LATER)[0].phase is Phase.ROLLED_BACK
    works, _ = decide(SPEC, record, replace(PROVEN, proven=()), LATER)
    assert (works.frozen, works.verdict) == (None, None)


def test_hold_and_alert_are_carried_out_once() -> None:
    findings = replace(PROVEN, tripped=(tripped("ttft", "hold"), tripped("tpot", "alert")))
    record, steps = decide(SPEC, RECORD, findings, NOW)
    assert record.held is not None
    assert {StepKind.HOLD, StepKind.ALERT} <= {step.did for step in steps}
    record = operator_actions.resume(Rollout(spec=SPEC, record=record), "on").record
    assert decide(SPEC, record, replace(findings, has_news=False), NOW) == (record, ())


def test_a_quarantined_slice_stays_on_the_baseline_while_the_others_go_on() -> None:
    beyond = tripped(action="quarantine")
    findings = replace(
        PROVEN, quarantined={"json": beyond}, proven=SLICES, is_aggregate_proven=False
    )
    record, _ = decide(SPEC, RECORD, findings, LATER)
    assert (record.phase, record.proven, record.quarantined) == (
        Phase.LIVE,
        ("other",),
        ("json",),
    )
    before = Rollout(spec=SPEC, record=RECORD)
    flag = flag_after(Flag(), before, before.model_copy(update={"record": record}))
    assert (flag.closed_to("int8"), flag.split) == (("json",), {"int8": 5.0})


def test_a_changed_build_restarts_the_run_from_any_stage() -> None:
    live = RECORD.model_copy(update={"phase": Phase.LIVE, "stage_index": 2, "proven": SLICES})
    record, steps = decide(SPEC, live, replace(PROVEN, changed="int8 is b now, was a"), LATER)
    assert (record.phase, record.run, record.proven) == (Phase.SHADOW, "run-2", ())
    assert [step.did for step in steps] == [StepKind.RESET]


def test_suspects_get_a_larger_share_of_the_aa_arm_before_any_verdict() -> None:
    findings = Findings(run="run-1", suspects=("json",))
    record, steps = decide(SPEC, RECORD, findings, NOW)
    assert [step.did for step in steps] == [StepKind.SUSPECT]
    watch = watch_of(Rollout(spec=SPEC, record=record))
    assert watch is not None
    assert (watch.aa, watch.aa_slices) == (SPEC.mirror.aa, {"json": 0.5})
    assert (watch.mirror, watch.generate) == (SPEC.mirror.rate, SPEC.mirror.generate)
    assert decide(SPEC, record, replace(findings, suspects=()), NOW) == (record, ())
    record, _ = decide(SPEC, record, replace(findings, suspects=("json", AGGREGATE)), NOW)
    watch = watch_of(Rollout(spec=SPEC, record=record))
    assert watch is not None
    assert watch.aa == 0.5


def test_noise_over_a_tolerance_holds_the_next_stage_and_takes_nothing_away() -> None:
    noisy = replace(PROVEN, noise="harm, tolerance below noise in json")
    record, _ = decide(SPEC, RECORD, noisy, LATER)
    assert (record.phase, record.verdict) == (Phase.SHADOW, Verdict.PASS)
    assert decide(SPEC, record, PROVEN, LATER)[0].phase is Phase.LIVE


def test_nothing_advances_without_a_pair_however_much_came_before() -> None:
    record, _ = decide(SPEC, RECORD, replace(PROVEN, has_news=False), LATER)
    assert (record.phase, record.verdict) == (Phase.SHADOW, Verdict.PASS)
    assert decide(SPEC, record, PROVEN, LATER)[0].phase is Phase.LIVE


def test_each_stage_wants_evidence_of_its_own() -> None:
    seconds, count = GATES.stage_seconds, GATES.stage_pairs
    before = {0: Flow(5.0, 7), 3: ENOUGH}
    first, _ = decide(SPEC, RECORD, replace(PROVEN, live_by_epoch=before, epoch=9), LATER)
    assert (first.phase, first.stage_epoch) == (Phase.LIVE, 9)
    assert (first.stage_from_seconds, first.stage_from_pairs) == (5.0, 7)
    # What came in shadow, of the baseline's answers, or was decided before it counts for nothing.
    late = {
        0: Flow(5.0, 7),
        3: ENOUGH,
        8: ENOUGH,
        9: Flow(seconds - 1, 1),
        12: Flow(1.0, count - 2),
    }
    shadowed = replace(PROVEN, proven_live=SLICES, flow=Flow(1e9, 10**9), live_by_epoch=late)
    assert decide(SPEC, first, shadowed, LATER)[0].stage_index == 1
    lived = replace(shadowed, live_by_epoch=late | {13: Flow(0.0, 1)})
    assert decide(SPEC, first, lived, LATER)[0].stage_index == 2
    # A comparator of before says no epoch: what it told since then counts.
    older = replace(shadowed, live_by_epoch={0: Flow(5.0 + seconds, 7 + count)})
    assert decide(SPEC, first, older, LATER)[0].stage_index == 2


def test_a_live_share_without_an_instrument_goes_back_in_time_and_is_no_fault() -> None:
    live = RECORD.model_copy(update={"phase": Phase.LIVE, "stage_index": 2, "proven": SLICES})
    broken = replace(PROVEN, broken="the self-test of c failed")
    frozen, steps = decide(SPEC, live, broken, NOW)
    assert (frozen.phase, frozen.frozen_at) == (Phase.LIVE, NOW)
    assert [step.did for step in steps] == [StepKind.FREEZE]
    still = replace(broken, has_news=False)
    almost = NOW + timedelta(seconds=GATES.broken_seconds - 1)
    assert decide(SPEC, frozen, still, almost) == (frozen, ())
    back, steps = decide(SPEC, frozen, still, almost + timedelta(seconds=1))
    assert (back.phase, back.run, back.verdict, back.held) == (Phase.SHADOW, "run-2", None, None)
    assert [step.did for step in steps] == [StepKind.RESET]
    works, _ = decide(SPEC, frozen, PROVEN, almost)
    assert (works.frozen, works.frozen_at) == (None, None)
    assert decide(SPEC, RECORD, broken, almost + timedelta(days=1))[0].phase is Phase.SHADOW


FINDINGS = st.builds(
    Findings,
    run=st.just("run-1"),
    pairs=st.sampled_from([0, GATES.pairs - 1, GATES.pairs, GATES.horizon]),
    seen=st.sampled_from([(), ("json",), SLICES]),
    proven=st.sampled_from([(), ("json",), SLICES]),
    proven_live=st.sampled_from([(), SLICES, SLICES]),
    stale=st.sampled_from([{}, {}, {}, {"json": "script: han"}, {AGGREGATE: "slices: json"}]),
    revalidations=st.sampled_from([0, 0, 1]),
    is_aggregate_proven=st.booleans(),
    hard=st.sampled_from([None, None, None, HardFailure("not_finite", "r1")]),
    tripped=st.sampled_from(
        [
            (),
            (),
            (),
            (tripped(),),
            (tripped("failure"),),
            (tripped("ttft", "hold"),),
            (tripped("tpot", "alert"),),
            (tripped("harm", "quarantine"),),
        ]
    ),
    quarantined=st.sampled_from([{}, {}, {"json": tripped(action="quarantine")}]),
    broken=st.sampled_from([None, None, "self-test"]),
    missing_ratio=st.sampled_from([0.0, 0.05, 0.2]),
    changed=st.sampled_from([None, None, None, "int8"]),
)


class RolloutMachine(RuleBasedStateMachine):
    """A rollout, the guard, the clock and people."""

    def __init__(self) -> None:
        super().__init__()
        self.rollout = Rollout(spec=SPEC, record=RECORD)
        self.flag = flag_after(Flag(), None, self.rollout)
        self.now = NOW
        self.flow, self.epoch = Flow(), 1
        self.live: dict[int, Flow] = {}

    @property
    def state(self) -> State:
        return State(flags={"demo": self.flag}, rollouts={self.rollout.key: self.rollout})

    def flow_of(self, record: RolloutRecord) -> Flow:
        """Evidence of a record's stage."""
        own = (each for at, each in self.live.items() if at >= record.stage_epoch)
        return sum(own, Flow()) if record.phase is Phase.LIVE else self.flow

    def become(self, rollout: Rollout) -> None:
        payload = draft_of(self.state, rollout, "ann", "why").payload
        assert isinstance(payload, RolloutPayload)
        if rollout.record.run != self.rollout.record.run:
            self.flow, self.live = Flow(), {}
        self.rollout, self.flag = payload.after, payload.flag_after

    @rule(seconds=st.sampled_from([-5.0, 1.0, GATES.broken_seconds]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(flow=st.sampled_from([Flow(1.0, 1), ENOUGH]), is_live=st.sampled_from([(), (0,), (1,)]))
    def evidence_comes(self, flow: Flow, is_live: tuple[int, ...]) -> None:
        """Evidence of shadow, or of answers that were decided now, or an epoch ago."""
        self.flow = Flow(self.flow.seconds + flow.seconds, self.flow.pairs + flow.pairs)
        for epoch in is_live:
            own = max(0, self.epoch - epoch)
            self.live[own] = self.live.get(own, Flow()) + flow

    @rule(findings=FINDINGS, rival=st.sampled_from([None, None, "int4"]), has_news=st.booleans())
    def guard_decides(self, findings: Findings, rival: str | None, has_news: bool) -> None:
        before = self.rollout.record
        self.epoch += 1
        findings = replace(
            findings,
            run=before.run,
            epoch=self.epoch,
            has_news=has_news,
            flow=self.flow,
            live_by_epoch=dict(self.live),
        )
        record, steps = decide(SPEC, before, findings, self.now, rival)
        assert bool(steps) == (record != before)
        if record.run == before.run:
            assert record.revalidations >= before.revalidations
        if before.phase not in WATCHED:
            assert record.phase is before.phase
            assert record == before or before.arbitration is not None
        if (record.phase, record.stage_index) != (before.phase, before.stage_index) and (
            record.phase in SERVING
        ):
            assert not record.stale
            flow = self.flow_of(before)
            assert has_news
            assert flow.seconds >= GATES.stage_seconds
            assert flow.pairs >= GATES.stage_pairs
            assert record.stage_index - before.stage_index in {0, 1}
            assert record.verdict is Verdict.PASS
            assert record.proven
            assert findings.pairs >= GATES.pairs
            assert findings.missing_ratio <= GATES.missing_ratio
            assert (before.held, record.frozen, rival, findings.broken) == (None,) * 4
        if findings.hard is not None and before.phase in WATCHED:
            assert record.phase is Phase.ROLLED_BACK
        if record.frozen is not None and record.phase in SERVING:
            assert record.frozen_at is not None
            assert self.now - record.frozen_at < timedelta(seconds=GATES.broken_seconds)
        if record.verdict is Verdict.PASS and before.verdict is not Verdict.PASS:
            assert findings.pairs < GATES.horizon or before.is_passed
        # Deciding again on the same things changes nothing more, but for one more stage in time.
        if record.phase is before.phase and record.run == before.run:
            again, more = decide(SPEC, record, findings, self.now, rival)
            assert {step.did for step in more} <= {StepKind.ADVANCE, StepKind.PROMOTE}, (
                again,
                more,
            )
        self.become(self.rollout.model_copy(update={"record": record}))

    @rule(verb=st.sampled_from(["hold", "resume", "rollback", "rearm"]))
    def operator_acts(self, verb: str) -> None:
        before = self.rollout.record
        acts = {
            "hold": lambda: operator_actions.hold(self.rollout, "why"),
            "resume": lambda: operator_actions.resume(self.rollout, "why"),
            "rollback": lambda: operator_actions.rollback(self.rollout, "why", self.now),
            "rearm": lambda: operator_actions.rearm(EMPTY, self.rollout, "why", self.now),
        }
        try:
            after = acts[verb]()
        except Conflict:
            return
        if before.phase is Phase.ROLLED_BACK:
            assert verb == "rearm"
            assert after.record.run != before.run
            assert (after.record.verdict, after.record.proven) == (None, ())
        self.become(after)

    @precondition(lambda self: self.rollout.record.phase in WATCHED)
    @rule(findings=FINDINGS)
    def operator_promotes(self, findings: Findings) -> None:
        record = self.rollout.record
        findings = replace(findings, run=record.run)
        try:
            after = operator_actions.promote(self.state, self.rollout, findings, self.now)
        except Conflict:
            return
        assert record.verdict is Verdict.PASS
        assert not record.stale
        assert findings.pairs >= GATES.pairs
        self.become(after)

    @invariant()
    def traffic_follows_the_record(self) -> None:
        record = self.rollout.record
        if record.phase is Phase.ROLLED_BACK:
            assert self.flag.blocked == ("int8",)
        else:
            assert self.flag.blocked == ()
            assert self.flag.split == ({"int8": self.rollout.share} if self.rollout.share else {})
        assert set(record.proven_live) <= set(record.proven)
        assert set(record.stale) <= {*record.proven, AGGREGATE}
        if record.phase in SERVING:
            open_slices = set(SLICES) - set(self.flag.closed_to("int8"))
            assert open_slices <= set(record.proven) - set(record.quarantined)
        else:
            own = record.quarantined if record.phase in WATCHED else ()
            assert self.flag.closed_to("int8") == own
        assert (record.outside, self.flag.quarantined) == (None, ())


RolloutMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestRolloutMachine = RolloutMachine.TestCase


# After a rollback by a quality signal


def rolled_back(signal: str = "harm", where: Tripped | None = None) -> RolloutRecord:
    findings = replace(
        PROVEN,
        tripped=(where or tripped(signal),),
        aa_pairs={signal: {"json": 7, "other": 50}},
    )
    record, _ = decide(SPEC, RECORD, findings, NOW)
    return record


def test_a_rollback_by_a_quality_signal_looks_at_the_instrument_as_well() -> None:
    record = rolled_back()
    assert (record.phase, record.verdict) == (Phase.ROLLED_BACK, Verdict.FAIL)
    plan = Arbitration(signal="harm", slices=("json",), until_pairs=7 + MOST_AA_PAIRS)
    assert record.arbitration == plan
    watch = watch_of(Rollout(spec=SPEC, record=record))
    assert watch is not None
    assert (watch.aa, watch.generate, watch.mirror) == (1.0, 1.0, 0.0)
    assert watch.mirror_slices == {"json": SPEC.mirror.rate}
    assert watch.failure_alpha is None


def test_a_rollback_is_the_instruments_where_the_baseline_differs_from_itself() -> None:
    told = "the baseline differs from itself in harm"
    broken = replace(PROVEN, broken=told, aa_alarm=told)
    record, steps = decide(SPEC, rolled_back(), broken, LATER)
    assert (record.phase, record.verdict, record.arbitration) == (
        Phase.ROLLED_BACK,
        Verdict.ERROR,
        None,
    )
    assert [step.did for step in steps] == [StepKind.VOID]
    assert "says nothing of the candidate" in record.cause


def test_a_rollback_stands_where_the_baseline_is_proven_to_agree_with_itself() -> None:
    elsewhere = replace(PROVEN, aa_proven={"harm": ("other", AGGREGATE)})
    assert decide(SPEC, rolled_back(), elsewhere, LATER) == (rolled_back(), ())
    sound = replace(PROVEN, aa_proven={"harm": ("json",)}, aa_pairs={"harm": {"json": 400}})
    record, steps = decide(SPEC, rolled_back(), sound, LATER)
    assert (record.phase, record.verdict, record.arbitration) == (
        Phase.ROLLED_BACK,
        Verdict.FAIL,
        None,
    )
    assert [step.did for step in steps] == [StepKind.CONFIRM]
    assert record.cause.endswith("the baseline agrees with itself, by 400 pairs")
    assert watch_of(Rollout(spec=SPEC, record=record)) is None


def test_without_a_suspect_all_slices_together_are_looked_at() -> None:
    everywhere = Tripped("harm", "rollback", 300.0, 200.0)
    start = rolled_back(where=everywhere)
    partly = replace(PROVEN, aa_proven={"harm": ("json", "other")})
    assert decide(SPEC, start, partly, LATER) == (start, ())
    record, _ = decide(SPEC, start, replace(PROVEN, aa_proven={"harm": (AGGREGATE,)}), LATER)
    assert (record.verdict, record.arbitration) == (Verdict.FAIL, None)


def test_a_rollback_is_inconclusive_where_the_instrument_stays_in_doubt() -> None:
    late = replace(PROVEN, aa_pairs={"harm": {"json": 7 + MOST_AA_PAIRS, "other": 0}})
    record, _ = decide(SPEC, rolled_back(), late, LATER)
    assert (record.phase, record.verdict, record.arbitration) == (
        Phase.ROLLED_BACK,
        Verdict.INCONCLUSIVE,
        None,
    )


def test_a_build_that_changes_ends_the_comparison() -> None:
    record, _ = decide(SPEC, rolled_back(), replace(PROVEN, changed="int8 is another"), LATER)
    assert (record.verdict, record.arbitration) == (Verdict.INCONCLUSIVE, None)


def test_a_self_test_that_fails_meanwhile_is_waited_for() -> None:
    failing = replace(PROVEN, broken="the self-test of c failed: timeout")
    assert decide(SPEC, rolled_back(), failing, LATER) == (rolled_back(), ())


def test_a_hard_failure_meanwhile_is_the_candidates() -> None:
    told = "the baseline differs from itself in harm"
    both = replace(PROVEN, aa_alarm=told, broken=told, hard=HardFailure("not_finite", "x"))
    record, _ = decide(SPEC, rolled_back(), both, LATER)
    assert (record.verdict, record.arbitration) == (Verdict.FAIL, None)


def test_a_verdict_does_not_wait_for_ever() -> None:
    silent = replace(PROVEN, aa_pairs={})
    soon, late = NOW + LONGEST_ARBITRATION / 2, NOW + LONGEST_ARBITRATION
    assert decide(SPEC, rolled_back(), silent, soon) == (rolled_back(), ())
    record, _ = decide(SPEC, rolled_back(), silent, late)
    assert (record.verdict, record.arbitration) == (Verdict.INCONCLUSIVE, None)


def test_a_failure_needs_no_arbitration() -> None:
    for findings in (
        replace(PROVEN, tripped=(tripped("failure"),)),
        replace(PROVEN, hard=HardFailure("not_finite", "x")),
    ):
        record, _ = decide(SPEC, RECORD, findings, NOW)
        assert (record.phase, record.arbitration) == (Phase.ROLLED_BACK, None)
