import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.deployments.evidence.evidence_path import POINTS, EvidencePath
from penumbra.deployments.evidence.kept_objects import dump, load, pack
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.evidence.run_totals import WORST
from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.spec import AdvanceRules, Calibrate, Guardrail
from penumbra.monitoring.observations import (
    AnsweredBy,
    Arm,
    Counts,
    Pair,
    Run,
    RunReport,
    SelfTest,
    Shed,
    Signal,
    Trip,
)
from penumbra.router.flags.routing_table import Scope
from tests.support.evidence_state import state_of
from tests.support.rollouts import aa_pairs, pair, pairs, rollout_spec

SLICES = ("json", "other")
RUN = Run("demo", "int8", "run-1")
SPEC = rollout_spec(
    gates=AdvanceRules(pairs=5, slice_pairs=5, stage_seconds=0.0, horizon=1000),
    guardrails=(
        Guardrail(
            signal=Signal.DISPLACEMENT,
            tolerance=Calibrate(calibrate=20),
            action="quarantine",
            share=0.3,
        ),
        Guardrail(signal=Signal.HARM, tolerance=0.1, action="rollback", share=0.5, missing="worst"),
        Guardrail(signal=Signal.FAILURE, tolerance=0.01, action="rollback", share=0.2),
        Guardrail(signal=Signal.TTFT, tolerance=0.2, action="hold"),
    ),
)

PAIRS = st.builds(
    Pair,
    request_id=st.sampled_from(["a", "b", "c"]),
    slice=st.sampled_from([*SLICES, "unknown"]),
    cluster=st.integers(1, 60),
    session=st.sampled_from([0, 0, 1, 2]),
    arm=st.sampled_from([Arm.CANDIDATE, Arm.CANDIDATE, Arm.BASELINE]),
    displacement=st.sampled_from([None, 0.0, 0.01, 0.3, 1.0]),
    harm=st.sampled_from([None, -1, 0, 1]),
    kl=st.sampled_from([None, 0.1]),
    missing=st.sampled_from([None, None, None, "timeout"]),
    failed=st.sampled_from([(), ("json",)]),
    at=st.floats(0, 1e9),
)
COUNTS = st.builds(
    Counts,
    slice=st.sampled_from(SLICES),
    signal=st.sampled_from([Signal.FAILURE, Signal.TTFT, Signal.HARM]),
    zeros=st.integers(0, 50),
    ones=st.integers(0, 3),
)
REPORTS = st.lists(
    st.builds(
        RunReport,
        run=st.just(RUN),
        pairs=st.lists(PAIRS, max_size=30).map(tuple),
        counts=st.lists(COUNTS, max_size=2).map(tuple),
        sheds=st.sampled_from([(), (Shed("other", "busy", 3),)]),
        self_tests=st.sampled_from(
            [
                (),
                (),
                (SelfTest(True, 0.0, "", 1.0),),
                (SelfTest(False, sys.float_info.max, "no", 2.0),),
            ]
        ),
        trips=st.sampled_from([(), (), (), (Trip("unhealthy", "503", 5.0),)]),
        fingerprints=st.sampled_from([{}, {"int8": "a"}, {"full": "f"}]),
    ),
    max_size=12,
)


def evidence_of(*reports: RunReport, source: str = "c") -> RunEvidence:
    evidence = RunEvidence(SPEC, "run-1", SLICES)
    for report in reports:
        evidence.fold(source, report)
    return evidence


def report(*observed: Pair) -> RunReport:
    return RunReport(RUN, pairs=observed)


@given(reports=REPORTS)
@settings(max_examples=60, deadline=None)
def test_stored_reports_give_the_same_evidence_bit_for_bit(reports: list[RunReport]) -> None:
    stored = msgspec.json.decode(msgspec.json.encode(reports), type=list[RunReport])
    first, again = evidence_of(*reports), evidence_of(*stored)
    assert state_of(again) == state_of(first)
    assert again.findings() == first.findings()


@given(reports=REPORTS, cut=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_reading_the_findings_in_between_changes_nothing(
    reports: list[RunReport], cut: int
) -> None:
    read = evidence_of(*reports[:cut])
    read.findings()
    for report in reports[cut:]:
        read.fold("c", report)
    assert state_of(read) == state_of(evidence_of(*reports))


@given(reports=REPORTS, cut=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_a_fold_goes_on_from_what_was_kept_of_it(reports: list[RunReport], cut: int) -> None:
    kept = load(pack(dump(evidence_of(*reports[:cut])), b"key"), b"key", RunEvidence)
    for report in reports[cut:]:
        kept.fold("c", report)
    whole = evidence_of(*reports)
    assert state_of(kept) == state_of(whole)
    assert kept.findings() == whole.findings()


def test_a_prompt_and_a_session_have_one_bet_each() -> None:
    evidence = evidence_of(
        report(pair(1), pair(2, cluster=1), pair(3, session=7), pair(4, session=7)),
        report(pair(1), pair(1, arm=Arm.BASELINE)),
    )
    assert evidence.findings().pairs == 2
    assert evidence.totals.repeats == 3
    assert evidence.instrument.aa[Signal.DISPLACEMENT].count == 1


def test_the_first_pairs_only_calibrate_and_harm_counts_meanwhile() -> None:
    evidence = evidence_of(report(*pairs(19, 0.02)))
    assert evidence.awaited(Signal.DISPLACEMENT, AnsweredBy.BASELINE) == {"json": 0, "other": 19}
    assert evidence.findings().calibration is None
    more = pairs(5, 0.02, start=21)
    evidence.fold("c", report(pair(20, 0.02, harm=0), *more))
    calibration = evidence.findings().calibration
    assert calibration is not None
    assert calibration["slices"]["other"]["pairs"] == 20
    monitor = evidence.monitors[Signal.DISPLACEMENT]
    assert monitor.count == 5
    assert monitor.guard.slice("other").tolerance == calibration["slices"]["other"]["tolerance"]
    assert evidence.monitors[Signal.HARM].count == 1


def test_each_slice_is_calibrated_by_its_own_pairs() -> None:
    evidence = evidence_of(report(*pairs(25, 0.01, slice_name="json"), *pairs(15, 0.2, start=100)))
    monitor = evidence.monitors[Signal.DISPLACEMENT]
    assert evidence.awaited(Signal.DISPLACEMENT, AnsweredBy.BASELINE) == {"other": 15}
    assert monitor.count == 5
    first = monitor.guard.slice("json").tolerance
    evidence.fold("c", report(*pairs(10, 0.2, start=200)))
    assert evidence.awaited(Signal.DISPLACEMENT, AnsweredBy.BASELINE) == {}
    assert monitor.guard.slice("json").tolerance == first
    assert monitor.guard.slice("other").tolerance > 0.2
    assert monitor.count == 10


def test_half_of_the_alpha_is_for_what_was_read_and_half_for_the_guard() -> None:
    evidence = evidence_of()
    assert evidence.monitors[Signal.DISPLACEMENT].spec.alpha == pytest.approx(0.01 * 0.3 / 2)


def test_a_slice_that_is_not_calibrated_is_not_proven() -> None:
    evidence = evidence_of(report(*(pair(n, 0.0, harm=0, slice="json") for n in range(1, 19))))
    assert evidence.findings().proven == ()


def test_a_missing_candidate_is_harm_and_a_failure() -> None:
    evidence = evidence_of(report(pair(1, missing="answer: timeout", displacement=None, harm=1)))
    assert evidence.monitors[Signal.HARM].guard.aggregate().mean == 1.0
    assert evidence.monitors[Signal.FAILURE].guard.aggregate().mean == 1.0
    assert evidence.findings().missing_ratio == 1.0


def test_a_missing_score_is_no_harm_of_a_request_without_an_answer() -> None:
    # One in ten is answered, all without harm; of the others one in fifty has no score. Were these
    # harm, there would be more of it than the tolerance, observed only where it came to that.
    evidence = evidence_of(
        *(
            report(
                pair(n, 0.0, harm=0)
                if n % 10 == 0
                else pair(
                    n,
                    **({"missing": "score: timeout", "displacement": None} if n % 50 == 1 else {}),
                )
            )
            for n in range(1, 1000)
        )
    )
    harm = evidence.monitors[Signal.HARM].guard.aggregate()
    assert (harm.count, harm.mean) == (99, 0.0)


def test_a_missing_score_is_displacement_if_the_guardrail_says_so() -> None:
    worst = Guardrail(
        signal=Signal.DISPLACEMENT, tolerance=0.2, action="rollback", share=0.5, missing="worst"
    )
    evidence = RunEvidence(rollout_spec(guardrails=(worst,)), "run-1", SLICES)
    missing = pair(1, missing="score: timeout", displacement=None, tokens=9)
    evidence.fold("c", report(missing))
    assert evidence.monitors[Signal.DISPLACEMENT].guard.aggregate().mean == 1.0
    # Where no tokens are known there is no score to miss.
    evidence.fold("c", report(pair(2, missing="answer: timeout", displacement=None)))
    assert evidence.monitors[Signal.DISPLACEMENT].guard.aggregate().count == 1


def test_a_slice_of_messages_is_proven_by_harm_and_stops_no_other() -> None:
    guardrails = tuple(
        Guardrail(signal=signal, tolerance=0.1, action="rollback", share=0.5)
        for signal in (Signal.DISPLACEMENT, Signal.HARM)
    )
    spec = rollout_spec(guardrails=guardrails)
    evidence = RunEvidence(spec, "run-1", SLICES)
    told = [pair(n, harm=0, slice="json") for n in range(1, 801)]
    told += [
        pair(n, harm=0, displacement=None, slice="other", route="messages")
        for n in range(1001, 1801)
    ]
    evidence.fold("c", report(*told))
    findings = evidence.findings()
    assert set(findings.proven) == {"json", "other"} & set(SLICES)
    assert dict(findings.covered)["other"] == ("messages",)
    assert findings.is_aggregate_proven


def test_a_few_decode_gaps_keep_no_slice_unproven() -> None:
    spec = rollout_spec(gates=AdvanceRules(pairs=5, slice_pairs=60, horizon=100_000))
    decode_gap = Guardrail(signal=Signal.DECODE_GAP, tolerance=0.01, action="rollback", share=0.1)
    others = tuple(
        each if each.share is None else each.model_copy(update={"share": each.share * 0.8})
        for each in spec.guardrails
    )
    spec = spec.model_copy(update={"guardrails": (*others, decode_gap)})
    evidence = RunEvidence(spec, "run-1", ("other",))
    told = [pair(n, harm=0, decode_gap=0.0 if n % 100 == 0 else None) for n in range(1, 2001)]
    evidence.fold("c", report(*told))
    assert evidence.findings().proven == ("other",)


def test_a_decode_gap_makes_a_slice_suspicious_before_its_proof_is_asked_for() -> None:
    guardrails = (
        Guardrail(signal=Signal.HARM, tolerance=0.1, action="rollback", share=0.5),
        Guardrail(signal=Signal.DECODE_GAP, tolerance=0.01, action="rollback", share=0.5),
    )
    gates = AdvanceRules(pairs=5, slice_pairs=300, horizon=100_000)
    evidence = RunEvidence(rollout_spec(guardrails=guardrails, gates=gates), "run-1", SLICES)
    told = [pair(n, harm=0, decode_gap=0.1, slice="json") for n in range(1, 31)]
    evidence.fold("c", report(*told))
    assert "json" in evidence.findings().suspects


def test_only_a_slice_that_the_baseline_answered_is_awaited() -> None:
    spec = rollout_spec()
    evidence = RunEvidence(spec, "run-1", SLICES)
    evidence.fold("c", report(*pairs(9, 0.0, answered_by=spec.candidate, slice_name="json")))
    assert evidence.findings().seen == ()
    evidence.fold("c", report(*pairs(1, 0.0, start=100, slice_name="other")))
    assert evidence.findings().seen == ("other",)


def test_a_guardrail_is_latched_by_the_observation_that_decides() -> None:
    # One report that holds the whole alarm, and much that speaks against it afterwards.
    spec = rollout_spec()
    evidence = RunEvidence(spec, "run-1", SLICES)
    evidence.fold("c", report(*pairs(20, 0.9), *pairs(400, 0.0, start=100)))
    tripped = evidence.monitors[Signal.DISPLACEMENT].tripped
    assert tripped is not None
    assert tripped.evidence >= tripped.boundary
    assert tripped.suspect == "other"


def test_nothing_is_bet_on_quality_while_the_instrument_is_broken() -> None:
    bad = RunReport(RUN, self_tests=(SelfTest(False, 3.0, "gap", 1.0),))
    good = RunReport(RUN, self_tests=(SelfTest(True, 0.0, "", 2.0),))
    evidence = evidence_of(bad, report(*(pair(n, 1.0, harm=1) for n in range(1, 200))))
    assert evidence.findings().broken is not None
    assert evidence.findings().pairs == 0
    evidence.fold("c", good)
    evidence.fold("c", report(pair(500, 0.0, harm=0)))
    assert (evidence.findings().broken, evidence.findings().pairs) == (None, 1)


def test_a_baseline_that_differs_from_itself_breaks_the_instrument_for_the_run() -> None:
    evidence = evidence_of(report(*aa_pairs(300, 0.2)))
    good = RunReport(RUN, self_tests=(SelfTest(True, 0.0, "", 2.0),))
    evidence.fold("c", good)
    assert evidence.findings().broken is not None
    assert evidence.findings().broken == evidence.findings().aa_alarm


def test_a_slice_beyond_tolerance_is_quarantined_and_the_others_are_judged_afresh() -> None:
    calibrating = report(
        *pairs(10, 0.02, slice_name="json"), *pairs(10, 0.02, start=11, slice_name="other")
    )
    mixed = [
        report(pair(100 + n, 0.9, slice="json"), pair(10_000 + n, 0.02, slice="other"))
        for n in range(60)
    ]
    evidence = evidence_of(calibrating, *mixed)
    findings = evidence.findings()
    assert set(findings.quarantined) == {"json"}
    assert findings.tripped == ()
    monitor = evidence.monitors[Signal.DISPLACEMENT]
    assert monitor.evidence < monitor.boundary
    worse = [report(pair(50_000 + n, 0.9, slice="other")) for n in range(60)]
    for later in worse:
        evidence.fold("c", later)
    assert [tripped.signal for tripped in evidence.findings().tripped] == ["displacement"]


def test_a_score_that_is_not_finite_trips_at_once_and_a_new_build_ends_the_run() -> None:
    hard = evidence_of(report(pair(1, not_finite=True))).findings().hard
    assert hard is not None
    assert hard.signal == "not_finite"
    evidence = evidence_of(
        RunReport(RUN, fingerprints={"int8": "a"}),
        RunReport(RUN, fingerprints={"int8": "b"}, pairs=pairs(5, 0.0)),
        report(*pairs(5, 0.0)),
    )
    assert evidence.findings().changed == "int8 is b now, was a"
    assert evidence.findings().pairs == 0


def test_the_worst_pairs_are_kept_and_no_more() -> None:
    evidence = evidence_of(report(*(pair(n, n / 1000) for n in range(1, 101))))
    worst = [pair.request_id for pair in evidence.totals.worst]
    assert worst == [f"r{n}" for n in range(100, 100 - WORST, -1)]


@given(st.integers(1, 5000), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_a_path_keeps_few_points_over_its_whole_length(length: int, step: int) -> None:
    path = EvidencePath()
    for count in range(step, length + 1, step):
        path.add(count, float(count))
    counts = [count for count, _ in path.points]
    assert len(counts) < POINTS
    assert counts == sorted(counts)
    if length >= step:
        assert counts
        assert counts[-1] > length / 2 - step


def test_slices_are_proven_as_a_family() -> None:
    slices = tuple("abcd")
    guardrail = Guardrail(signal=Signal.HARM, tolerance=0.1, action="rollback", share=1.0)
    evidence = RunEvidence(rollout_spec(guardrails=(guardrail,)), "run-1", slices)
    good = [pair(n, harm=0, slice="a") for n in range(1, 151)]
    while not evidence.monitors[Signal.HARM].guard.slice("a").is_proven:
        evidence.fold("c", report(good.pop(0)))
    alone = evidence.proofs.of[AnsweredBy.BASELINE].now["a"]
    bar = 1.0 / evidence.proofs.alpha
    assert evidence.proofs.alpha == 0.75 * 0.05  # the first run of these builds
    assert (
        20.0
        <= alone
        < evidence.proofs.of[AnsweredBy.BASELINE].boundary("a")
        == bar + 3 * (bar - 1.0)
    )
    assert evidence.findings().proven == ()
    evidence.fold("c", report(*good))
    assert evidence.proofs.of[AnsweredBy.BASELINE].now["a"] >= 4 * bar
    assert evidence.findings().proven == ("a",)
    # A later decline takes nothing back, and the others do without the one that is proven.
    evidence.fold("c", report(*(pair(n, harm=1, slice="a") for n in range(200, 210))))
    assert evidence.findings().proven == ("a",)
    assert evidence.proofs.of[AnsweredBy.BASELINE].boundary("b") == bar + 2 * (bar - 1.0)


def test_slice_with_too_few_pairs_is_no_more_proven_than_it_began() -> None:
    spec = rollout_spec(gates=AdvanceRules(pairs=5, slice_pairs=60, horizon=1000))
    evidence = RunEvidence(spec, "run-1", ("other",))
    evidence.fold("c", report(*pairs(59, 0.0)))
    assert evidence.monitors[Signal.DISPLACEMENT].guard.slice("other").is_proven
    assert evidence.proofs.of[AnsweredBy.BASELINE].now["other"] == 1.0
    evidence.fold("c", report(pair(60)))
    assert evidence.findings().proven == ("other",)


def test_later_runs_of_the_same_builds_have_less_of_the_alpha_of_proof() -> None:
    told = {"int8": "b" * 16, "full": "a" * 16}
    runs = {"/".join(("a" * 16, "b" * 16)): 2, "other": 7}
    evidence = RunEvidence(rollout_spec(), "run-4", SLICES, runs)
    assert evidence.proofs.alpha == 0.05 * 0.75
    evidence.fold("c", RunReport(RUN, fingerprints=told))
    assert evidence.proofs.earlier_runs == 2
    assert evidence.proofs.alpha == pytest.approx(0.05 * 0.25 / 6)


def test_tolerance_below_the_noise_of_its_slice_is_an_alarm_that_says_what_is_wanted() -> None:
    # Within `aa_tolerance` (.005), but more than the candidate may: an equal build would be beyond.
    strict = Guardrail(
        signal=Signal.DISPLACEMENT,
        tolerance=0.03,
        slices={"json": 0.001},
        action="rollback",
        share=1.0,
    )
    evidence = RunEvidence(rollout_spec(guardrails=(strict,)), "run-1", SLICES)
    noise = [pair(n, 0.004, slice="json", arm=Arm.BASELINE) for n in range(1, 4001)]
    while evidence.findings().noise is None:
        evidence.fold("c", report(noise.pop(0)))
    assert evidence.instrument.aa_alarm is None
    found = evidence.findings().noise
    assert found is not None
    assert found.startswith("displacement, tolerance below noise in json: found 0.004 by")
    while evidence.instrument.aa_alarm is None:
        evidence.fold("c", report(*(noise.pop(0) for _ in range(10))))
    assert (
        "differs from itself in displacement, tolerance below noise in json"
        in evidence.instrument.aa_alarm
    )
    assert (
        "tolerance 0.001; wanted a tolerance over the noise (0.00" in evidence.instrument.aa_alarm
    )


def test_each_slice_has_its_own_tolerance_of_harm_in_the_aa_arm() -> None:
    harm = Guardrail(
        signal=Signal.HARM, tolerance=0.02, slices={"json": 0.3}, action="rollback", share=1.0
    )
    evidence = RunEvidence(rollout_spec(guardrails=(harm,)), "run-1", SLICES)
    spec = evidence.instrument.aa[Signal.HARM].spec
    assert spec.tolerances == {"json": 0.3, "other": 0.02}
    assert evidence.instrument.aa[Signal.DISPLACEMENT].spec.tolerances == dict.fromkeys(
        SLICES, 0.005
    )


def test_slices_become_suspects_long_before_the_guard_trips() -> None:
    evidence = RunEvidence(rollout_spec(), "run-1", SLICES)
    assert evidence.findings().suspects == ()
    for number in range(1, 100):
        evidence.fold("c", report(pair(number, 0.9, slice="json")))
        if evidence.findings().suspects:
            break
    assert evidence.findings().suspects == ("json", AGGREGATE)
    assert evidence.findings().tripped == ()


def test_pairs_of_slices_outside_of_the_scope_are_no_evidence() -> None:
    scoped = SPEC.model_copy(update={"scope": Scope(slices=("json",))})
    within, without = pairs(5, 0.1, slice_name="json"), pairs(50, 0.9, start=100)
    found = RunEvidence(scoped, "r-1", ("json", "other"))
    alone = RunEvidence(scoped, "r-1", ("json", "other"))
    found.fold("c", report(*within, *without, *aa_pairs(20, 0.9, start=500)))
    alone.fold("c", report(*within))
    assert found.findings() == alone.findings()
    assert found.pairs == {"json": 5}
    assert found.totals.outside == 70
