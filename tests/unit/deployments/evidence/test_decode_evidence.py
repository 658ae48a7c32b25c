"""Decode gaps and scorer tests as evidence: what trips, what is void, what proves."""

import random
from typing import Any

import pytest

from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.record import Phase, RolloutRecord, Verdict
from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail, RolloutSpec
from penumbra.monitoring.observations import Arm, Pair, Run, RunReport, ScorerTest, Signal
from penumbra.monitoring.signals.decode_gap import LIMIT, decode_gap
from penumbra.monitoring.signals.faithfulness import ScorerFault
from tests.support.rollouts import NOW, rollout_spec

RUN = Run("demo", "int8", "run-1")
SLICES = ("json", "other")


def spec(**fields: Any) -> RolloutSpec:
    guardrails = (
        Guardrail(signal=Signal.DISPLACEMENT, tolerance=0.03, action="rollback", share=0.3),
        Guardrail(signal=Signal.DECODE_GAP, tolerance=0.01, action="rollback", share=0.1),
        Guardrail(signal=Signal.HARM, tolerance=0.05, action="rollback", share=0.4),
        Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.2),
    )
    gates = AdvanceRules(pairs=5, slice_pairs=5, stage_seconds=0.0, horizon=10_000)
    return rollout_spec(**{"gates": gates, "guardrails": guardrails, **fields})


def pair_of(number: int, own: float = 0.0, floor: float = 0.0, **fields: Any) -> Pair:
    told = {
        "request_id": f"r{number}",
        "slice": SLICES[number % 2],
        "cluster": number + 1,
        "displacement": 0.0,
        "harm": 0,
        "decode_gap": decode_gap(own, floor),
        "own_gap": own,
        "baseline_gap": floor,
        **fields,
    }
    return Pair(**told)


def fold(evidence: RunEvidence, *pairs: Pair, tests: tuple[ScorerTest, ...] = ()) -> None:
    evidence.fold("comparator", RunReport(RUN, pairs=pairs, scorer_tests=tests))


def record(phase: Phase = Phase.SHADOW) -> RolloutRecord:
    stage = 0 if phase is Phase.SHADOW else 1
    return RolloutRecord(
        phase=phase, step=stage, since=NOW, run=RUN.id, slices=SLICES, cause="begins"
    )


def pairs_to_trip(evidence: RunEvidence, most: int, **fields: Any) -> int | None:
    for number in range(most):
        fold(evidence, pair_of(number, **fields))
        if any(tripped.signal == "decode_gap" for tripped in evidence.findings().tripped):
            return number + 1
    return None


def test_a_gap_of_a_twentieth_trips_within_sixty_pairs() -> None:
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    count = pairs_to_trip(evidence, 60, own=0.05, decode_apart=0.05, prefill_apart=0.001)
    assert count is not None
    after, _ = decide(spec(), record(), evidence.findings(), NOW)
    assert (after.phase, after.verdict) == (Phase.ROLLED_BACK, Verdict.FAIL)
    assert after.arbitration is not None


@pytest.mark.parametrize("seed", range(20))
def test_equal_builds_do_not_trip_whatever_their_floor_is(seed: int) -> None:
    draw = random.Random(seed)
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    for number in range(1500):
        own, floor = draw.betavariate(0.5, 3), draw.betavariate(0.5, 3)
        fold(evidence, pair_of(number, own, floor))
    assert evidence.findings().tripped == ()


def test_a_scorer_that_is_at_fault_is_an_error_and_no_rollback() -> None:
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    pairs_to_trip(evidence, 60, own=0.1, decode_apart=0.001, prefill_apart=0.1)
    fold(evidence, *(pair_of(1000 + n, displacement=0.9) for n in range(50)))
    after, _ = decide(spec(), record(), evidence.findings(), NOW)
    assert (after.phase, after.verdict) == (Phase.SHADOW, Verdict.ERROR)
    assert after.frozen is not None
    assert "contradicts its decoding" in after.frozen


def test_all_apart_is_an_error_and_the_live_share_goes_back() -> None:
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    pairs_to_trip(evidence, 60, own=0.1, decode_apart=0.1, prefill_apart=0.1)
    for phase, wanted in ((Phase.LIVE, Phase.ROLLED_BACK), (Phase.SHADOW, Phase.SHADOW)):
        after, _ = decide(spec(), record(phase), evidence.findings(), NOW)
        assert (after.phase, after.verdict) == (wanted, Verdict.ERROR)


def test_an_unfit_scorer_voids_its_scores_and_not_harm() -> None:
    unfit = ScorerTest(1.0, ScorerFault.SCORER.value, "gap 0.1")
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    fold(evidence, tests=(unfit,))
    fold(evidence, *(pair_of(n, displacement=1.0) for n in range(100)))
    assert evidence.findings().tripped == ()
    after, _ = decide(spec(), record(), evidence.findings(), NOW)
    assert (after.phase, after.verdict) == (Phase.SHADOW, Verdict.ERROR)
    fold(evidence, *(pair_of(200 + n, harm=1) for n in range(100)))
    after, _ = decide(spec(), after, evidence.findings(), NOW)
    assert (after.phase, after.verdict) == (Phase.ROLLED_BACK, Verdict.FAIL)
    assert after.cause.startswith("harm")


def test_a_scorer_that_is_fit_again_ends_the_error() -> None:
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    fold(evidence, tests=(ScorerTest(1.0, ScorerFault.SCORER.value, "gap 0.1"),))
    frozen, _ = decide(spec(), record(), evidence.findings(), NOW)
    fold(evidence, tests=(ScorerTest(2.0),))
    after, _ = decide(spec(), frozen, evidence.findings(), NOW)
    assert (after.frozen, after.verdict) == (None, None)


def test_a_rollback_by_displacement_is_an_error_once_the_scorer_is_found_unfit() -> None:
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    fold(evidence, *(pair_of(n, displacement=0.5) for n in range(50)))
    after, _ = decide(spec(), record(), evidence.findings(), NOW)
    assert after.phase is Phase.ROLLED_BACK
    fold(evidence, tests=(ScorerTest(1.0, ScorerFault.SCORER.value, "gap 0.1"),))
    after, _ = decide(spec(), after, evidence.findings(), NOW)
    assert (after.phase, after.verdict, after.arbitration) == (
        Phase.ROLLED_BACK,
        Verdict.ERROR,
        None,
    )


def test_a_decode_gap_that_was_observed_has_to_be_proven_and_another_has_not() -> None:
    seen, unseen = (RunEvidence(spec(), RUN.id, SLICES) for _ in range(2))
    for number in range(1200):
        fold(seen, pair_of(number, decode_gap=0.0101 if number % 2 else 0.0))
        fold(unseen, pair_of(number, decode_gap=None))
    assert seen.findings().proven == ("json",)
    assert unseen.findings().proven == SLICES
    assert unseen.findings().is_aggregate_proven


def test_a_baseline_that_differs_from_itself_in_decoding_breaks_the_instrument() -> None:
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    for number in range(400):
        fold(evidence, pair_of(number, own=0.1, arm=Arm.BASELINE))
    alarm = evidence.instrument.aa_alarm
    assert alarm is not None
    assert alarm.startswith("the baseline differs from itself in decode_gap")


def test_a_difference_that_another_version_cuts_elsewhere_counts_as_the_largest() -> None:
    evidence = RunEvidence(spec(), RUN.id, SLICES)
    fold(evidence, pair_of(0, decode_gap=0.9))
    stream = evidence.monitors[Signal.DECODE_GAP].guard.aggregate()
    assert stream.mean == LIMIT
