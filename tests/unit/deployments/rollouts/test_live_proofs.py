"""A candidate answers most clients only once its own answers are proven."""

from dataclasses import replace
from datetime import timedelta

import pytest

from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.findings import Findings, Flow, Tripped
from penumbra.deployments.rollouts.gates import AdvanceCondition, advance_conditions
from penumbra.deployments.rollouts.record import Phase, RolloutRecord, Verdict
from penumbra.deployments.rollouts.transitions import StepKind
from tests.support.rollouts import NOW, rollout_spec

SLICES = ("json", "other")
SPEC = rollout_spec(stages=("shadow", 5.0, 25.0, 50.0, 100.0))
LATER = NOW + timedelta(seconds=SPEC.gates.stage_seconds)
ENOUGH = Flow(SPEC.gates.stage_seconds, SPEC.gates.stage_pairs)
SHADOWED = Findings(
    run="run-1",
    pairs=500,
    flow=ENOUGH,
    live_by_epoch={1: ENOUGH},
    seen=SLICES,
    proven=SLICES,
    is_aggregate_proven=True,
)
ALL_LIVE = replace(SHADOWED, proven_live=SLICES)


def at(stage_index: int, **changes: object) -> RolloutRecord:
    fields: dict[str, object] = {
        "phase": Phase.LIVE if stage_index else Phase.SHADOW,
        "stage_index": stage_index,
        "since": NOW,
        "run": "run-1",
        "slices": SLICES,
        "cause": "went on",
        "verdict": Verdict.PASS,
        "is_passed": True,
        "is_counted": True,
        "proven": SLICES,
    }
    return RolloutRecord.model_validate(fields | changes)


def live_condition(record: RolloutRecord) -> AdvanceCondition:
    conditions = advance_conditions(SPEC, record, SHADOWED)
    return next(each for each in conditions if each.name == "live")


@pytest.mark.parametrize("stage_index", [0, 1])
def test_shadow_pairs_carry_a_candidate_to_stages_in_which_it_answers_few(stage_index: int) -> None:
    assert decide(SPEC, at(stage_index), SHADOWED, LATER)[0].stage_index == stage_index + 1


@pytest.mark.parametrize("stage_index", [2, 3])
def test_most_clients_are_answered_only_after_a_proof_of_its_own_answers(stage_index: int) -> None:
    assert decide(SPEC, at(stage_index), SHADOWED, LATER)[0].stage_index == stage_index
    one = replace(SHADOWED, proven_live=("json",))
    assert decide(SPEC, at(stage_index), one, LATER)[0].stage_index == stage_index
    assert decide(SPEC, at(stage_index), ALL_LIVE, LATER)[0].stage_index == stage_index + 1


def test_promotion_wants_that_proof_as_well() -> None:
    assert decide(SPEC, at(4), SHADOWED, LATER)[0].phase is Phase.LIVE
    assert decide(SPEC, at(4), ALL_LIVE, LATER)[0].phase is Phase.PROMOTED


def test_a_first_live_stage_of_any_size_can_only_rest_on_shadow_pairs() -> None:
    spec = rollout_spec(stages=("shadow", 100.0))
    record, _ = decide(spec, at(0), SHADOWED, LATER)
    assert (record.phase, record.stage_index) == (Phase.LIVE, 1)
    assert decide(spec, at(1), SHADOWED, LATER)[0].phase is Phase.LIVE
    assert decide(spec, at(1), ALL_LIVE, LATER)[0].phase is Phase.PROMOTED


def test_the_condition_names_what_is_proven_and_what_is_wanted() -> None:
    found = live_condition(at(2, proven_live=("json",)))
    assert found.found == "proven where the candidate answered: json"
    assert found.wanted == "json, other, before it answers 50 %"
    assert live_condition(at(1)).is_met


def test_required_slices_say_which_proofs_are_waited_for() -> None:
    one = replace(SHADOWED, proven_live=("json",))
    for required, is_enough in (((), True), (("json",), True), (("other",), False)):
        spec = SPEC.model_copy(update={"required_slices": required})
        assert decide(spec, at(2), SHADOWED, LATER)[0].stage_index == 2
        assert decide(spec, at(2), one, LATER)[0].stage_index == (3 if is_enough else 2)


def test_all_slices_together_do_where_any_slice_will_do() -> None:
    whole = replace(SHADOWED, is_live_aggregate_proven=True)
    for required, stage_index in (((), 3), (("json",), 2), (None, 2)):
        spec = SPEC.model_copy(update={"required_slices": required})
        assert decide(spec, at(2), whole, LATER)[0].stage_index == stage_index


def test_a_quarantined_slice_is_not_waited_for() -> None:
    record = at(2, quarantined=("other",), proven=("json",), proven_live=("json",))
    assert live_condition(record).is_met


def test_a_live_proof_is_remembered_and_told() -> None:
    record, steps = decide(SPEC, at(1), replace(ALL_LIVE, has_news=False), NOW)
    assert record.proven_live == SLICES
    assert [step.did for step in steps] == [StepKind.PROVE_LIVE]
    assert record.cause == "within tolerance where the candidate answered: json, other"
    assert decide(SPEC, record, replace(SHADOWED, has_news=False), NOW) == (record, ())


def test_a_rollback_tells_where_its_evidence_comes_from() -> None:
    own = Tripped("harm", "rollback", 300.0, 200.0, ("json",), "json", "candidate")
    record, _ = decide(SPEC, at(1), replace(SHADOWED, tripped=(own,)), NOW)
    told = "harm: evidence 300 reached 200 where the candidate answered (json)"
    assert record.cause == told


def test_readings_are_told_by_who_answered() -> None:
    read: dict[str, object] = {"slices": {"json": {}}, "rule": "r"}
    record, _ = decide(SPEC, at(1), replace(SHADOWED, calibration=read, has_news=False), NOW)
    assert record.cause == "the tolerance of displacement was read and frozen: json"
    more = read | {"live_slices": {"json": {}}}
    record, _ = decide(SPEC, record, replace(SHADOWED, calibration=more, has_news=False), NOW)
    assert record.cause.endswith("frozen: where the candidate answered: json")
    other = {**more, "slices": {"json": {"pairs": 9}}}
    record, _ = decide(SPEC, record, replace(SHADOWED, calibration=other, has_news=False), NOW)
    assert record.cause.endswith("frozen: anew, by who answered")
