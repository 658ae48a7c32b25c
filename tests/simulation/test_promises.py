"""Short, seeded versions of `make sim`: the same code, fewer repetitions, binomial tolerances."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.sim.bounds import chance_of_at_most, upper_bound
from benchmarks.sim.lanes import Lanes
from benchmarks.sim.onsets import ALPHA_OF_INTERVAL, CHANGES, cover
from benchmarks.sim.promotion import ALPHA_PROMOTION, CANDIDATES, prove, trip
from benchmarks.sim.releases import ALONE, BUILDS, FAMILY, release
from benchmarks.sim.rivals import CHECKS, T_ZERO
from benchmarks.sim.traffic import (
    ALPHA,
    CONCENTRATION,
    NULLS,
    REGRESSIONS,
    Scenario,
)
from benchmarks.sim.trial import SHIPPED, result_of, simulate
from penumbra.monitoring.stats.guard import GuardSpec

REPS = 200
UNLIKELY = 1e-4
"""Largest probability, over seeds, that a test fails although its subject keeps its promise."""


def is_plausible(events: int, trials: int, probability: float) -> bool:
    """Returns whether so many events or more are plausible at this probability."""
    return events == 0 or 1.0 - chance_of_at_most(events - 1, trials, probability) > UNLIKELY


@pytest.mark.parametrize("scenario", NULLS, ids=lambda scenario: scenario.name)
def test_false_rollback_is_as_rare_as_promised(scenario: Scenario) -> None:
    firsts = simulate(scenario, REPS, seed=1, horizon=20_000, has_rivals=False)
    assert is_plausible(result_of(firsts[SHIPPED], 0).fired, REPS, ALPHA)


def test_rules_without_the_promise_break_it() -> None:
    firsts = simulate(NULLS[1], REPS, seed=1, horizon=20_040)
    assert not is_plausible(result_of(firsts[CHECKS], 0).fired, REPS, ALPHA)
    assert not is_plausible(result_of(firsts[T_ZERO], 0).fired, REPS, ALPHA)


@pytest.mark.parametrize(
    ("name", "median", "p90"),
    [
        ("all traffic +0.10", 257, 464),
        ("all traffic +0.30", 52, 87),
        ("all traffic +0.90", 14, 20),
        ("one 5 % slice +0.90", 414, 579),
    ],
)
def test_regression_is_rolled_back_as_soon_as_the_prototype_did(
    name: str, median: int, p90: int
) -> None:
    scenario = next(regression for regression in REGRESSIONS if regression.name == name)
    firsts = simulate(scenario, REPS, seed=2, horizon=5000, has_rivals=False)[SHIPPED]
    # Half of the repetitions are over by the median, give or take what chance explains.
    late = int((firsts > 1.1 * median).sum())
    assert is_plausible(late, REPS, 0.5)
    assert is_plausible(int((firsts > 1.1 * p90).sum()), REPS, 0.1)


def test_good_past_does_not_shield_a_late_regression() -> None:
    scenario = Scenario("late", "harm", 0.3, begins=10_000)
    result = result_of(
        simulate(scenario, 100, seed=3, horizon=11_000, has_rivals=False)[SHIPPED], 10_000
    )
    assert (result.early, result.fired) == (0, 100)
    assert result.p90 < 300


def test_stream_at_its_tolerance_is_seldom_proven() -> None:
    null = next(candidate for candidate in CANDIDATES if candidate.is_null)
    assert is_plausible(int(np.isfinite(prove(null, 100, seed=4)).sum()), 100, ALPHA_PROMOTION)


def test_slices_at_their_tolerance_are_seldom_released_as_a_family() -> None:
    build, reps = BUILDS[0], 60
    firsts = release(build, reps, seed=6, horizon=20_000)
    false = {rule: int(np.isfinite(first).any(axis=1).sum()) for rule, first in firsts.items()}
    assert is_plausible(false[FAMILY], reps, ALPHA_PROMOTION)
    assert not is_plausible(false[ALONE], reps, ALPHA_PROMOTION)


def test_interval_since_the_onset_holds_where_that_of_the_whole_run_does_not() -> None:
    found = cover(CHANGES[1], reps=20, seed=7)
    assert (found.shown, found.whole) == (20, 20)
    assert is_plausible(found.missed, 20, ALPHA_OF_INTERVAL)


def test_failure_process_trips_soon_or_never() -> None:
    assert np.isinf(trip(0.005, 20, seed=5)).all()
    assert np.median(trip(0.5, 200, seed=5)) <= 5


def test_traffic_that_moves_to_harder_slices_is_no_regression() -> None:
    """Simpson's trap: every slice is within its tolerance, the pooled mean is not any more."""
    own = GuardSpec(
        {"easy": 0.015, "hard": 0.05}, 0.025, low=0.0, high=1.0, alpha=ALPHA, horizon=20_000
    )
    pooled = replace(own, tolerances={"easy": 0.025, "hard": 0.025})
    tripped = {}
    for name, spec in (("own", own), ("pooled", pooled)):
        rng = np.random.default_rng(6)
        lanes, is_tripped = Lanes(spec, 50), np.zeros(50, dtype=bool)
        for number in range(6000):
            slices = (rng.random(50) < (0.2 if number < 3000 else 0.8)).astype(int)
            means = np.array([0.010, 0.040])[slices]
            values = rng.beta(means * CONCENTRATION, (1 - means) * CONCENTRATION)
            is_tripped |= lanes.observe(slices, values) >= 1.0 / ALPHA
        tripped[name] = int(is_tripped.sum())
    assert tripped == {"own": 0, "pooled": 50}


@pytest.mark.parametrize("trials", [100, 300, 2000])
def test_upper_bound_of_no_event_is_the_rule_of_three(trials: int) -> None:
    assert upper_bound(0, trials) == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-9)


@pytest.mark.parametrize(("events", "trials"), [(1, 50), (6, 2000), (49, 50)])
def test_upper_bound_is_where_so_few_events_become_unlikely(events: int, trials: int) -> None:
    bound = upper_bound(events, trials)
    assert chance_of_at_most(events, trials, bound) == pytest.approx(0.05, rel=1e-6)
