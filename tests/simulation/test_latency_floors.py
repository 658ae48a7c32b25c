"""Latencies beside shadow answers, by the shipped evidence: what is condemned, and what is seen."""

import pytest

from benchmarks.sim.latency_floors import SCENARIOS, Times, live_pairs_to_trip

REPS = 8


def runs(times: Times) -> list[int | None]:
    """Live pairs to the trip of some runs, by fixed seeds."""
    return [live_pairs_to_trip(times, seed, shadow=6_000, live=1_500) for seed in range(REPS)]


@pytest.mark.parametrize(
    "name", ["equal, shadow path 3 times as slow", "equal, noise .6, load ± 60 %",
             "1.5 times as slow all along: at the factor"]
)  # fmt: skip
def test_a_build_within_the_factor_is_not_condemned(name: str) -> None:
    assert runs(SCENARIOS[name]) == [None] * REPS


@pytest.mark.parametrize("name", ["2 times as slow all along", "5 times as slow since it is live"])
def test_a_slow_build_is_seen_although_no_baseline_answers(name: str) -> None:
    found = runs(SCENARIOS[name])
    assert all(count is not None and count < 400 for count in found)
