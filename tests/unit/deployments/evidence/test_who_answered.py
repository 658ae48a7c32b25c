"""Pairs in which the baseline answered, and pairs in which the candidate did, never mix."""

import pytest

from penumbra.deployments.evidence.kind_guards import UNDIVIDED
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.spec import AdvanceRules, Calibrate, Guardrail
from penumbra.monitoring.observations import (
    AnsweredBy,
    Arm,
    Pair,
    Run,
    RunReport,
    Shed,
    Signal,
    no_counterpart,
)
from penumbra.monitoring.stats.guard import Guard
from tests.support.rollouts import pair, pairs, rollout_spec

SLICES = ("json", "other")
RUN = Run("demo", "int8", "run-1")
SHADOW, LIVE = AnsweredBy.BASELINE, AnsweredBy.CANDIDATE
DISPLACEMENT = Signal.DISPLACEMENT


def evidence_of(*observed: Pair, tolerance: float | Calibrate = 0.1) -> RunEvidence:
    guardrails = (
        Guardrail(signal=DISPLACEMENT, tolerance=tolerance, action="rollback", share=0.5),
        Guardrail(signal=Signal.HARM, tolerance=0.1, action="quarantine", share=0.5),
    )
    gates = AdvanceRules(pairs=5, slice_pairs=50, stage_seconds=0.0, horizon=1000)
    evidence = RunEvidence(rollout_spec(gates=gates, guardrails=guardrails), "run-1", SLICES)
    evidence.fold("c", RunReport(RUN, pairs=observed))
    return evidence


def live(count: int, displacement: float, **changes: object) -> tuple[Pair, ...]:
    made = pairs(count, displacement, start=10_000, answered_by="int8")
    return tuple(pair_with(each, **changes) for each in made)


def pair_with(one: Pair, **changes: object) -> Pair:
    fields = {name: getattr(one, name) for name in Pair.__struct_fields__}
    return Pair(**(fields | changes))


@pytest.mark.parametrize(
    ("answered_by", "kind"), [("", SHADOW), ("full", SHADOW), ("int4", SHADOW), ("int8", LIVE)]
)
def test_a_pair_is_of_the_candidate_only_if_it_names_it(answered_by: str, kind: AnsweredBy) -> None:
    assert pair(1, answered_by=answered_by).kind("int8") is kind


def test_each_kind_has_streams_of_its_own() -> None:
    guard = evidence_of(*pairs(30, 0.02), *live(20, 0.05)).monitors[DISPLACEMENT].guard
    shadow, own = guard.slice("other", SHADOW), guard.slice("other", LIVE)
    assert (shadow.count, shadow.mean) == (30, pytest.approx(0.02))
    assert (own.count, own.mean) == (20, pytest.approx(0.05))


def test_the_evidence_is_the_average_over_the_kinds() -> None:
    monitor = evidence_of(*pairs(3, 0.4), *live(2, 0.6)).monitors[DISPLACEMENT]
    apart = [Guard(monitor.spec), Guard(monitor.spec)]
    for guard, value, count in zip(apart, (0.4, 0.6), (3, 2), strict=True):
        for _ in range(count):
            guard.observe("other", value)
    assert monitor.evidence == pytest.approx((apart[0].evidence + apart[1].evidence) / 2)
    assert monitor.boundary == pytest.approx(1 / (0.01 * 0.5))


def test_a_long_good_shadow_does_not_shield_damage_where_the_candidate_answers() -> None:
    evidence = evidence_of(*pairs(600, 0.02), *live(30, 0.6))
    tripped = evidence.findings().tripped[0]
    assert (tripped.answered_by, tripped.suspect) == ("candidate", "other")


def test_a_tolerance_that_was_read_of_shadow_pairs_is_not_put_to_live_ones() -> None:
    read = Calibrate(calibrate=50)
    evidence = evidence_of(*pairs(200, 0.02), *live(50, 0.09), tolerance=read)
    monitor = evidence.monitors[DISPLACEMENT]
    shadow = monitor.guard.of(SHADOW).slice("other").tolerance
    own = monitor.guard.of(LIVE).slice("other").tolerance
    assert 0.02 < shadow < own
    assert own > 0.09
    assert evidence.awaited(DISPLACEMENT, LIVE) == {"json": 0}
    record = evidence.findings().calibration
    assert record is not None
    assert record["slices"]["other"]["tolerance"] == shadow
    assert record["live_slices"]["other"]["tolerance"] == own
    assert evidence.findings().tripped == ()


def test_a_live_tolerance_in_reading_is_neither_judged_nor_proven() -> None:
    evidence = evidence_of(
        *pairs(200, 0.02), *live(49, 0.9, harm=0), tolerance=Calibrate(calibrate=50)
    )
    assert evidence.monitors[DISPLACEMENT].guard.of(LIVE).slice("other").count == 0
    assert evidence.findings().proven_live == ()
    assert evidence.findings().tripped == ()


def test_what_is_read_and_what_is_bet_share_the_alpha_of_all_kinds() -> None:
    evidence = evidence_of(tolerance=Calibrate(calibrate=50))
    reading = sum(buffer._alpha * len(SLICES) for buffer in evidence.calibrations.values())
    assert reading + evidence.monitors[DISPLACEMENT].spec.alpha == pytest.approx(0.01 * 0.5)


def test_a_proof_is_of_the_kind_of_its_pairs() -> None:
    good = [pair_with(each, harm=0) for each in pairs(300, 0.0)]
    found = evidence_of(*good).findings()
    assert (found.proven, found.proven_live) == (("other",), ())
    found = evidence_of(*live(300, 0.0, harm=0)).findings()
    assert (found.proven, found.proven_live) == ((), ("other",))


def test_slice_pairs_are_wanted_of_each_kind() -> None:
    good = [pair_with(each, harm=0) for each in pairs(300, 0.0)]
    found = evidence_of(*good, *live(49, 0.0, harm=0)).findings()
    assert (found.proven, found.proven_live) == (("other",), ())
    assert found.pairs == 349


def test_the_whole_is_proven_by_kind_with_enough_pairs() -> None:
    good = [pair_with(each, harm=0) for each in pairs(300, 0.0)]
    found = evidence_of(*good).findings()
    assert (found.is_aggregate_proven, found.is_live_aggregate_proven) == (True, False)
    spread = [
        pair_with(each, slice=name, harm=0)
        for each, name in zip(live(98, 0.0), SLICES * 49, strict=True)
    ]
    found = evidence_of(*spread).findings()
    assert (found.proven_live, found.is_live_aggregate_proven) == ((), True)
    assert not evidence_of(*spread[:49]).findings().is_live_aggregate_proven


def test_decisions_of_older_versions_are_made_again_from_one_stream() -> None:
    told = evidence_of()
    observed = (*pairs(3, 0.4), *live(2, 0.6))
    evidence = RunEvidence(told.spec, "run-1", SLICES, kinds=UNDIVIDED)
    evidence.fold("c", RunReport(RUN, pairs=observed))
    guard = Guard(told.monitors[DISPLACEMENT].spec)
    for each in observed:
        assert each.displacement is not None
        guard.observe("other", each.displacement)
    assert evidence.monitors[DISPLACEMENT].evidence == guard.evidence
    evidence.fold("c", RunReport(RUN, pairs=pairs(9, 1.0, start=50)))
    found = evidence.findings()
    assert (found.tripped[0].answered_by, found.proven_live) == (None, ())


def test_the_baseline_is_compared_with_itself_by_kind() -> None:
    again = [pair_with(each, arm=Arm.BASELINE) for each in (*pairs(40, 0.001), *live(10, 0.004))]
    aa = evidence_of(*again).instrument.aa[DISPLACEMENT].guard
    assert aa.slice("other", SHADOW).mean == pytest.approx(0.001)
    assert aa.slice("other", LIVE).mean == pytest.approx(0.004)


def test_a_quarantine_by_live_harm_keeps_the_tolerances_of_both_kinds() -> None:
    bad = tuple(pair_with(each, slice="json") for each in live(40, 0.0, harm=1))
    good = [pair_with(each, harm=0) for each in pairs(100, 0.0)]
    better = [pair_with(each, harm=0, cluster=each.cluster + 500) for each in live(50, 0.0)]
    third = [pair(n, harm=0, slice="unknown") for n in range(20_000, 20_040)]
    monitor = evidence_of(*good, *better, *third, *bad).monitors[Signal.HARM]
    assert set(monitor.quarantined) == {"json"}
    assert monitor.evidence < monitor.boundary
    for kind in monitor.kinds:
        assert set(monitor._watch.of(kind).spec.tolerances) == {"other"}


def test_live_answers_without_a_counterpart_are_told_by_slice() -> None:
    evidence = evidence_of()
    sheds = (
        Shed("json", no_counterpart(Signal.TTFT), 3),
        Shed("json", no_counterpart(Signal.TPOT), 2),
        Shed("other", "busy", 1),
    )
    evidence.fold("gateway-0", RunReport(RUN, sheds=sheds))
    totals = evidence.totals
    assert totals.sheds == {"busy": 1}
    assert totals.without_counterpart[Signal.TTFT] == {"json": 3}
    assert totals.without_counterpart[Signal.TPOT] == {"json": 2}
