"""Runs of the same builds are counted over re-arms, new specs, and names of the candidate."""

from datetime import timedelta

from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.findings import Findings, HardFailure
from penumbra.deployments.rollouts.record import MOST_BUILDS, Phase, Rollout, RolloutRecord
from penumbra.deployments.rollouts.transitions import StepKind
from penumbra.router.flags.routing_table import ModelSnapshot, Variant
from tests.support.rollouts import NOW, rollout_spec

SPEC = rollout_spec()
BUILDS = {"full": "f" * 16, "int8": "8" * 16}
KEY = "/".join(("8" * 16, "f" * 16))
RECORD = RolloutRecord(phase=Phase.SHADOW, since=NOW, run="r-1", slices=("other",), cause="c")
STATE = State(
    models={
        "demo": ModelSnapshot(
            baseline="full",
            variants={name: Variant(url="http://h") for name in ("full", "int8", "again")},
        )
    }
)


def findings(run: str, pairs: int, **more: object) -> Findings:
    return Findings(run=run, pairs=pairs, fingerprints=BUILDS, **more)  # type: ignore[arg-type]


def judged(record: RolloutRecord, pairs: int) -> RolloutRecord:
    return decide(SPEC, record, findings(record.run, pairs), NOW)[0]


def test_run_counts_once_it_could_prove_a_slice() -> None:
    early = judged(RECORD, SPEC.gates.slice_pairs - 1)
    assert not early.is_counted
    assert early.runs_so_far == {}
    late, steps = decide(SPEC, early, findings("r-1", SPEC.gates.slice_pairs), NOW)
    assert late.is_counted
    assert [step.did for step in steps] == [StepKind.COUNT]
    assert late.runs_so_far == {KEY: 1}
    assert decide(SPEC, late, findings("r-1", 500), NOW) == (late, ())


def test_runs_are_counted_over_re_arms_and_new_specs() -> None:
    record = judged(RECORD, 20)
    hard = HardFailure("unhealthy", "503")
    record, _ = decide(SPEC, record, findings("r-1", 20, hard=hard), NOW)
    rollout = operator_actions.rearm(STATE, Rollout(spec=SPEC, record=record), "again", NOW)
    assert rollout.record.earlier_runs == {KEY: 1}
    assert not rollout.record.is_counted
    rollout = Rollout(spec=SPEC, record=judged(rollout.record, 20))
    state = State(models=STATE.models, rollouts={rollout.key: rollout})
    other = SPEC.model_copy(update={"alpha": 0.02})
    applied = operator_actions.apply(state, other, "stricter", NOW, "n")
    assert applied.record.earlier_runs == {KEY: 2}
    # Not judged in between: nothing more to count.
    state = State(models=STATE.models, rollouts={applied.key: applied})
    assert operator_actions.apply(state, SPEC, "back", NOW, "n").record.earlier_runs == {KEY: 2}


def test_new_spec_after_a_rollback_counts_the_run_that_was_rolled_back() -> None:
    record = judged(RECORD, 20)
    rolled_back = operator_actions.rollback(Rollout(spec=SPEC, record=record), "slow", NOW)
    state = State(models=STATE.models, rollouts={rolled_back.key: rolled_back})
    other = SPEC.model_copy(update={"alpha": 0.02})
    applied = operator_actions.apply(state, other, "stricter", NOW, "n")
    assert applied.record.phase is Phase.ROLLED_BACK
    assert applied.record.earlier_runs == {KEY: 1}
    assert operator_actions.rearm(STATE, applied, "on", NOW).record.earlier_runs == {KEY: 1}


def test_same_build_as_another_candidate_keeps_its_count() -> None:
    rollout = Rollout(spec=SPEC, record=judged(RECORD, 20))
    state = State(models=STATE.models, rollouts={rollout.key: rollout})
    other = SPEC.model_copy(update={"candidate": "again"})
    assert operator_actions.apply(state, other, "renamed", NOW, "n").record.earlier_runs == {KEY: 1}


def test_changed_build_begins_its_own_count() -> None:
    record = judged(RECORD, 20)
    changed = findings("r-1", 40, changed="int8 is 9 now")
    record, _ = decide(SPEC, record, changed, NOW + timedelta(hours=1))
    assert (record.fingerprints, record.earlier_runs) == ({}, {KEY: 1})


def test_counts_are_bounded_and_the_longest_ago_are_forgotten() -> None:
    runs = {f"{number}": 1 for number in range(MOST_BUILDS)}
    record = RECORD.model_copy(
        update={"earlier_runs": runs, "fingerprints": BUILDS, "is_counted": True}
    )
    assert list(record.runs_so_far) == [*list(runs)[1:], KEY]
