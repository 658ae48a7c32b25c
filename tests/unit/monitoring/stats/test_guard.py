import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.monitoring.stats.guard import Guard, GuardSpec, Sums, sums_of_counts
from penumbra.monitoring.stats.wealth import CAP

SPEC = GuardSpec(
    tolerances={"de": 0.02, "en": 0.03, "tools": 0.1},
    default_tolerance=0.02,
    low=-1.0,
    high=1.0,
    alpha=0.01,
)
RATES = replace(SPEC, low=0.0)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["de", "en", "tools", "new"]), st.sampled_from([-1.0, 0.0, 0.25, 1.0])
    ),
    max_size=40,
)
Steps = list[tuple[str, float]]


def guard_after(steps: Steps, spec: GuardSpec = SPEC) -> Guard:
    guard = Guard(spec)
    for slice_name, value in steps:
        guard.observe(slice_name, value)
    return guard


def sums_of(steps: Steps) -> Sums:
    sums = SPEC.sums()
    for slice_name, value in steps:
        sums.add(slice_name, value)
    return sums


def figures(guard: Guard) -> list[float]:
    views = [guard.aggregate(), *(guard.slice(name) for name in guard.spec.tolerances)]
    return [
        guard.evidence,
        *(
            figure
            for view in views
            for figure in (view.count, view.mean or 0, view.evidence, view.proof)
        ),
    ]


def test_guard_without_observations_says_nothing() -> None:
    guard = Guard(SPEC)
    view = guard.slice("de")
    assert (guard.evidence, guard.is_tripped, guard.culprits(), guard.suspect()) == (
        0.5,
        False,
        (),
        None,
    )
    assert (view.count, view.mean, view.proof, view.is_proven) == (0, None, 1.0, False)
    assert (view.lower, view.upper) == (-1.0, 1.0)


@settings(deadline=None, max_examples=30)
@given(STEPS)
def test_observe_is_a_fold_of_one_bit_for_bit(steps: Steps) -> None:
    folded = Guard(SPEC)
    for step in steps:
        folded.fold(sums_of([step]))
    assert folded.dump() == guard_after(steps).dump()


@settings(deadline=None, max_examples=30)
@given(STEPS, st.integers(0, 40))
def test_restored_guard_goes_on_bit_for_bit(steps: Steps, cut: int) -> None:
    stored = json.dumps(guard_after(steps[:cut]).dump())
    restored = Guard.restore(SPEC, json.loads(stored))
    for slice_name, value in steps[cut:]:
        restored.observe(slice_name, value)
    assert restored.dump() == guard_after(steps).dump()


@settings(deadline=None, max_examples=30)
@given(STEPS, STEPS)
def test_merging_two_batches_commutes_bit_for_bit(first: Steps, second: Steps) -> None:
    one, other = sums_of(first), sums_of(second)
    one.merge(sums_of(second))
    other.merge(sums_of(first))
    left, right = Guard(SPEC), Guard(SPEC)
    left.fold(one)
    right.fold(other)
    assert figures(left) == pytest.approx(figures(right), rel=1e-12, abs=1e-15)
    for name, sums in one.by_slice.items():
        assert sums == other.by_slice[name]


@settings(deadline=None, max_examples=30)
@given(STEPS, st.randoms(use_true_random=False))
def test_order_within_a_batch_matters_to_the_last_bits_only(steps: Steps, random: object) -> None:
    shuffled = list(steps)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    left, right = Guard(SPEC), Guard(SPEC)
    left.fold(sums_of(steps))
    right.fold(sums_of(shuffled))
    assert figures(left) == pytest.approx(figures(right), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(STEPS)
def test_plain_proof_is_the_same_folded_or_observed(steps: Steps) -> None:
    folded = Guard(SPEC)
    folded.fold(sums_of(steps))
    assert folded.aggregate().proof == pytest.approx(guard_after(steps).aggregate().proof, rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(STEPS, st.integers(0, 39))
def test_a_worse_observation_never_lowers_evidence_nor_raises_proof(
    steps: Steps, where: int
) -> None:
    if where >= len(steps):
        return
    worse = [*steps[:where], (steps[where][0], 1.0), *steps[where + 1 :]]
    before, after = guard_after(steps), guard_after(worse)
    assert after.evidence >= before.evidence * (1 - 1e-12)
    assert after.aggregate().proof <= before.aggregate().proof * (1 + 1e-12)


def test_counts_are_the_observations_they_count() -> None:
    counted, added = Guard(RATES), Guard(RATES)
    counted.fold(sums_of_counts(RATES, "de", zeros=7, ones=3))
    batch = RATES.sums()
    for value in [0.0] * 7 + [1.0] * 3:
        batch.add("de", value)
    added.fold(batch)
    assert figures(counted) == pytest.approx(figures(added), rel=1e-12)
    assert counted.slice("de").bins == added.slice("de").bins


def test_empty_batch_changes_nothing() -> None:
    guard = guard_after([("de", 1.0)])
    before = guard.dump()
    guard.fold(sums_of_counts(SPEC, "de", 0, 0))
    assert guard.dump() == before


def test_negative_number_of_observations_is_refused() -> None:
    with pytest.raises(ValueError, match="found -1"):
        SPEC.sums().add("de", 0.0, -1)


def test_slice_that_is_not_known_counts_in_the_aggregate_only() -> None:
    guard = guard_after([("new", 1.0)] * 3)
    assert guard.aggregate().count == 3
    assert guard.aggregate().evidence > 0.5
    assert {guard.slice(name).evidence for name in SPEC.tolerances} == {0.5}


def test_aggregate_bets_on_what_lies_over_the_slices_own_tolerance() -> None:
    at_hard = Guard(replace(SPEC, tolerances={"easy": 0.02, "hard": 0.3}))
    at_easy = Guard(at_hard.spec)
    for value in [1.0] * 3 + [0.0] * 7:  # a mean of .3
        at_hard.observe("hard", value)
        at_easy.observe("easy", value)
    assert at_hard.aggregate().evidence < 1.0 < at_easy.aggregate().evidence
    assert at_hard.aggregate().tolerance == pytest.approx(0.3)


def test_trip_is_latched_and_survives_a_restart() -> None:
    guard = guard_after([("de", 1.0)] * 30)
    assert guard.is_tripped
    for _ in range(5000):
        guard.observe("de", -1.0)
    assert guard.evidence < guard.boundary
    assert guard.is_tripped
    assert Guard.restore(SPEC, guard.dump()).is_tripped


def test_evidence_never_overflows_and_decays_again() -> None:
    guard = guard_after([("de", 1.0)] * 3000)
    assert guard.slice("de").evidence <= CAP
    assert math.isfinite(guard.evidence)
    for _ in range(3000):
        guard.observe("de", -1.0)
    assert guard.slice("de").evidence < 1.0
    assert math.isfinite(guard.slice("de").proof)


def test_whole_batch_of_failures_never_overflows() -> None:
    guard = Guard(RATES)
    guard.fold(sums_of_counts(RATES, "de", 0, 10**6))
    guard.fold(sums_of_counts(RATES, "de", 10**9, 0))
    assert math.isfinite(guard.evidence)
    assert math.isfinite(guard.slice("de").proof)


def test_long_good_past_does_not_shield_a_regression() -> None:
    guard = guard_after([("de", 0.0)] * 20_000)
    bad = 0
    while not guard.is_tripped:
        guard.observe("de", 1.0)
        bad += 1
    assert bad <= 30


def test_culprits_are_the_slices_that_got_worse_worst_first() -> None:
    guard = guard_after([("de", 0.0), ("en", 0.0), ("tools", 0.0)] * 50 + [("en", 1.0)] * 20)
    for _ in range(19):
        guard.observe("tools", 1.0)
    assert guard.culprits() == ("en", "tools")


def test_suspect_is_given_where_no_culprit_is_proven() -> None:
    guard = guard_after([("de", 0.0), ("en", 1.0), ("en", 1.0), ("tools", -1.0)])
    assert guard.culprits() == ()
    assert guard.suspect() == "en"


def test_proof_comes_with_good_pairs_and_goes_with_bad_ones() -> None:
    guard = guard_after([("de", 0.0)] * 400)
    assert guard.slice("de").is_proven
    assert not guard.slice("en").is_proven
    for _ in range(20):
        guard.observe("de", 1.0)
    assert not guard.slice("de").is_proven


def test_state_grows_with_the_logarithm_of_the_number_of_observations() -> None:
    spec = replace(RATES, tolerances={"de": 0.1})
    guard = guard_after([("de", (number % 1000) / 1000) for number in range(2000)], spec)
    before = len(json.dumps(guard.dump()))
    for number in range(20_000):
        guard.observe("de", (number % 1000) / 1000)
    assert len(json.dumps(guard.dump())) < before * 4  # of its history alone; eleven times as many


@pytest.mark.parametrize(
    ("shares", "name", "horizon"),
    [
        ({}, "de", 100_000 / 3),
        ({"de": 0.5}, "de", 50_000),
        ({"de": 0.5}, "en", 25_000),
        ({"de": 0.001}, "de", 1000),
        ({"gone": 0.9}, "de", 100_000 / 3),
    ],
)
def test_horizon_of_a_slice_follows_its_share(
    shares: dict[str, float], name: str, horizon: float
) -> None:
    assert replace(SPEC, shares=shares).horizon_of(name) == pytest.approx(horizon)


def test_guard_of_another_spec_is_not_restored() -> None:
    with pytest.raises(KeyError):
        Guard.restore(replace(SPEC, tolerances={"fr": 0.02}), Guard(SPEC).dump())


@settings(max_examples=20)
@given(st.sampled_from([math.nan, math.inf, -1.5, 2.0]))
def test_observation_outside_the_range_is_refused_and_changes_nothing(value: float) -> None:
    guard = Guard(SPEC)
    with pytest.raises(ValueError, match="found the observation"):
        guard.observe("de", value)
    assert guard.dump() == Guard(SPEC).dump()
