"""Latencies of a candidate at 100 %, which no live answer of the baseline stands beside."""

import random

import pytest

from penumbra.deployments.api.rollback_explanation import _has_floors
from penumbra.deployments.evidence.judge import evidence_of
from penumbra.deployments.evidence.latency_floors import READING
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.payload import Decided
from penumbra.deployments.rollouts.record import Phase, Rollout, RolloutRecord
from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail
from penumbra.monitoring.observations import Arm, Pair, Run, RunReport, SelfTest, Signal
from tests.support.rollouts import NOW, pair, rollout_spec

SLICES = ("json", "other")
RUN = Run("demo", "int8", "run-1")
TTFT, TPOT = Signal.TTFT, Signal.TPOT
BLOCK = 250
"""Pairs of a slice from which a floor is read, at a tolerance of .2."""
SPEC = rollout_spec(
    gates=AdvanceRules(pairs=5, slice_pairs=50, stage_seconds=0.0, horizon=10_000),
    guardrails=(
        Guardrail(signal=Signal.HARM, tolerance=0.1, action="rollback", share=0.5),
        Guardrail(signal=TTFT, tolerance=0.2, action="rollback", share=0.2),
        Guardrail(signal=TPOT, tolerance=0.2, action="hold"),
    ),
)


def evidence(*observed: Pair) -> RunEvidence:
    found = RunEvidence(SPEC, "run-1", SLICES)
    found.fold("c", RunReport(RUN, pairs=observed))
    return found


def timed(
    count: int,
    ratio: float,
    *,
    live: bool,
    start: int,
    field: str = "first_ratio",
    **changes: object,
) -> tuple[Pair, ...]:
    """Pairs whose client waited so many times as long as the shadow request, give or take."""
    draws = random.Random(start)
    answered_by = "int8" if live else "full"
    return tuple(
        pair(n, answered_by=answered_by, **{field: ratio * draws.lognormvariate(0, 0.2)}, **changes)
        for n in range(start, start + count)
    )


SHADOW = timed(2 * BLOCK, 0.4, live=False, start=1)
"""Pairs of a candidate in shadow, whose answers come by a path that is 2.5 times as slow."""


def test_a_candidate_that_gets_slow_at_100_percent_is_seen() -> None:
    found = evidence(*SHADOW, *timed(300, 0.4 * 3, live=True, start=10_000))
    assert found.latency.judged[TTFT] == {"other": 300}
    tripped = found.monitors[TTFT].tripped
    assert tripped is not None
    assert tripped.suspect == "other"


def test_an_equal_build_is_not_late_beside_slower_shadow_answers() -> None:
    found = evidence(*SHADOW, *timed(2000, 0.4, live=True, start=10_000))
    stream = found.monitors[TTFT].guard.slice("other")
    assert (stream.count, stream.mean) == (2000, 0.0)
    assert found.monitors[TTFT].evidence < 1.0


@pytest.mark.parametrize(("slowness", "is_late"), [(1.4, False), (1.9, True)])
def test_a_steady_slowness_is_late_from_the_factor_on(slowness: float, is_late: bool) -> None:
    shadow = timed(2 * BLOCK, 0.4 / slowness, live=False, start=1)
    found = evidence(*shadow, *timed(500, 0.4 * slowness, live=True, start=10_000))
    assert (found.monitors[TTFT].tripped is not None) is is_late


def test_nothing_is_judged_before_the_slice_has_a_floor() -> None:
    others = timed(BLOCK, 0.4, live=False, start=1, slice="json")
    own = timed(BLOCK - 1, 0.4, live=False, start=5_000)
    found = evidence(*others, *own, *timed(300, 9.0, live=True, start=10_000))
    assert found.latency.judged[TTFT] == {}
    assert found.monitors[TTFT].guard.slice("other").count == 0
    floor = found.latency.floors[TTFT]["other", "first_ratio"]
    assert (floor.latest, floor.read.count, floor.read.wanted) == (None, BLOCK - 1, BLOCK)


def test_streams_whole_answers_and_pace_have_floors_of_their_own() -> None:
    shadow = timed(BLOCK, 0.4, live=False, start=1, field="whole_ratio")
    live = [
        *timed(50, 0.4, live=True, start=10_000),
        *timed(50, 0.4, live=True, start=11_000, field="pace_ratio"),
        *timed(50, 0.4, live=True, start=12_000, field="whole_ratio"),
    ]
    found = evidence(*shadow, *live)
    assert found.latency.judged == {TTFT: {"other": 50}, TPOT: {}}


def test_a_pace_that_gets_slow_is_seen() -> None:
    shadow = timed(BLOCK, 0.4, live=False, start=1, field="pace_ratio")
    found = evidence(*shadow, *timed(300, 1.2, live=True, start=10_000, field="pace_ratio"))
    assert found.monitors[TPOT].tripped is not None
    assert found.monitors[TTFT].tripped is None


def test_a_broken_instrument_says_nothing_of_latency_and_does_not_stop_it() -> None:
    found = evidence(*SHADOW)
    broken = SelfTest(False, 1.0, "off", 0.0)
    live = timed(300, 1.2, live=True, start=10_000)
    for start in range(0, 300, 100):  # a comparator that fails tests again
        some = tuple(live[start : start + 100])
        found.fold("c", RunReport(RUN, self_tests=(broken,), pairs=some))
    assert found.instrument.broken is not None
    assert found.monitors[TTFT].tripped is not None


def test_pairs_of_the_baseline_with_itself_and_repeats_are_no_floor() -> None:
    again = timed(BLOCK, 0.4, live=False, start=1, arm=Arm.BASELINE)
    one = timed(1, 0.4, live=False, start=1) * BLOCK
    found = evidence(*again, *one)
    assert found.latency.floors[TTFT]["other", "first_ratio"].read.count == 1


def test_pairs_of_a_comparator_that_tells_no_times_judge_nothing() -> None:
    plain = [pair(n, answered_by="int8" if n > 1000 else "full") for n in range(2000)]
    found = evidence(*plain)
    assert found.latency.judged == {TTFT: {}, TPOT: {}}


def test_floors_have_a_part_of_the_guardrails_alpha() -> None:
    whole = SPEC.alpha * 0.2
    found = evidence()
    assert found.monitors[TTFT].boundary == pytest.approx(1 / (whole * (1 - READING)))
    assert len(found.latency.floors[TTFT]) == 2 * len(SLICES)


def test_a_decision_of_before_is_explained_with_the_boundary_that_it_had() -> None:
    record = RolloutRecord(phase=Phase.LIVE, since=NOW, run="r-1", slices=SLICES, cause="c")
    rollout = Rollout(spec=SPEC, record=record)
    for has_floors in (False, True):
        monitor = evidence_of(rollout, has_floors=has_floors).monitors[TTFT]
        decided = Decided.model_validate(
            {
                "action": "rollback",
                "signal": "ttft",
                "detail": "late",
                "pairs": 1,
                "report": ("gateway-0", "life-1", 1),
                "evidence": 600.0,
                "boundary": monitor.boundary,
                "observed_at": None,
            }
        )
        assert _has_floors(decided, SPEC) is has_floors
