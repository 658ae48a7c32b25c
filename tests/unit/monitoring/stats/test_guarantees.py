"""Each statistic's guarantee, worked out exactly over every path of small distributions."""

import itertools
from collections.abc import Callable, Iterator
from math import fsum, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.monitoring.stats.betting import bin_of
from penumbra.monitoring.stats.failure import HORIZON, FailureProcess
from penumbra.monitoring.stats.guard import AGGREGATE_WEIGHT, Guard, GuardSpec
from penumbra.monitoring.stats.intervals import lower_end, upper_end

ROUNDING = 1e-9
SPEC = GuardSpec(
    tolerances={"easy": 0.02, "hard": 0.3},
    default_tolerance=0.1,
    low=-1.0,
    high=1.0,
    alpha=0.1,
    horizon=3000,
    shares={"easy": 0.9},
)
Path = tuple[tuple[str, float], ...]
Chances = Callable[[Path], dict[tuple[str, float], float]]
"""What has happened -> probability of each next (slice, observation)."""


def paths(chances: Chances, length: int) -> Iterator[tuple[Path, float]]:
    """Every path of this length, with its probability."""
    found: list[tuple[Path, float]] = [((), 1.0)]
    for _ in range(length):
        found = [
            ((*path, step), chance * part)
            for path, chance in found
            for step, part in chances(path).items()
            if part > 0
        ]
    return iter(found)


def after(spec: GuardSpec, path: Path) -> Guard:
    guard = Guard(spec)
    for slice_name, value in path:
        guard.observe(slice_name, value)
    return guard


def wealth_with_what_is_to_flow_in(guard: Guard) -> float:
    """S-bar + sum of w gamma (N - n): what the theory calls the supermartingale."""
    spec = guard.spec
    share = (1.0 - AGGREGATE_WEIGHT) / len(spec.tolerances)
    of_all = AGGREGATE_WEIGHT * 0.5 * (1 - guard.aggregate().count / spec.horizon)
    of_slices = fsum(
        share * 0.5 * (1 - guard.slice(name).count / spec.horizon_of(name))
        for name in spec.tolerances
    )
    return guard.evidence + of_all + of_slices


def with_mean(mean: float, spread: float) -> dict[float, float]:
    """A distribution over {-1, 0, 1}."""
    up = (spread + mean) / 2
    return {-1.0: spread - up, 0.0: 1.0 - spread, 1.0: up}


def drifting(slack: float) -> Chances:
    """Mix, spread and slack change with what was seen last, as a hostile world might arrange it."""

    def chances(path: Path) -> dict[tuple[str, float], float]:
        worse = sum(value for _, value in path)
        share = 0.2 if worse > 0 else 0.8
        means = {
            "easy": 0.02 - (slack if worse < 0 else 0.0),
            "hard": 0.3 - (slack if worse > 0 else 0.0),
            "unknown": 0.1,
        }
        shares = {"easy": share * 0.9, "hard": (1 - share) * 0.9, "unknown": 0.1}
        return {
            (name, value): shares[name] * part
            for name, mean in means.items()
            for value, part in with_mean(mean, 0.4 + 0.1 * len(path)).items()
        }

    return chances


def test_evidence_at_tolerance_has_mean_one_under_drift_and_dependence() -> None:
    mean = fsum(
        chance * wealth_with_what_is_to_flow_in(after(SPEC, path))
        for path, chance in paths(drifting(0.0), 4)
    )
    assert mean == pytest.approx(1.0, abs=ROUNDING)


@settings(deadline=None, max_examples=5)
@given(st.floats(0.0, 0.25))
def test_evidence_within_tolerance_has_mean_at_most_one(slack: float) -> None:
    mean = fsum(
        chance * wealth_with_what_is_to_flow_in(after(SPEC, path))
        for path, chance in paths(drifting(slack), 3)
    )
    assert mean <= 1.0 + ROUNDING


@pytest.mark.parametrize("mean", [0.05, 0.1, 0.2])
def test_guard_trips_falsely_with_probability_at_most_alpha(mean: float) -> None:
    spec = GuardSpec({"only": mean}, mean, low=0.0, high=1.0, alpha=0.4)
    parts = {("only", 0.0): 1.0 - mean, ("only", 1.0): mean}
    tripped = fsum(
        chance for path, chance in paths(lambda _: parts, 8) if after(spec, path).is_tripped
    )
    assert 0.01 < tripped <= spec.alpha


@settings(deadline=None, max_examples=5)
@given(st.floats(0.0, 0.3))
def test_proof_beyond_tolerance_has_mean_at_most_one(excess: float) -> None:
    parts = {("easy", value): part for value, part in with_mean(0.02 + excess, 0.6).items()}
    for stream in (Guard.aggregate, lambda guard: guard.slice("easy")):
        mean = fsum(
            chance * stream(after(SPEC, path)).proof for path, chance in paths(lambda _: parts, 4)
        )
        assert mean <= 1.0 + ROUNDING
        if excess == 0.0:
            assert mean == pytest.approx(1.0, abs=ROUNDING)


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.7])
def test_interval_misses_the_mean_with_probability_at_most_alpha(mean: float) -> None:
    alpha, length = 0.3, 12
    # How many zeros and ones were seen -> chance of being there without ever having missed.
    held, missed = {(0, 0): 1.0}, 0.0
    for _ in range(length):
        reached: dict[tuple[int, int], float] = {}
        for (zeros, ones), chance in held.items():
            for place, part in (((zeros + 1, ones), 1 - mean), ((zeros, ones + 1), mean)):
                reached[place] = reached.get(place, 0.0) + chance * part
        held = {}
        for (zeros, ones), chance in reached.items():
            bins = {bin_of(0.0): zeros, bin_of(1.0): ones}
            lower, upper = lower_end(bins, 0.0, 1.0, alpha), upper_end(bins, 0.0, 1.0, alpha)
            if lower <= mean <= upper:
                held[zeros, ones] = chance
            else:
                missed += chance
    assert 0.0 < missed <= alpha


def test_failure_process_at_tolerance_has_mean_one() -> None:
    tolerance, length = 0.3, 8
    mean = 0.0
    for path in itertools.product((False, True), repeat=length):
        process = FailureProcess(tolerance, alpha=1e-9)
        for is_failure in path:
            process.observe(is_failure)
        chance = prod(tolerance if is_worse else 1 - tolerance for is_worse in path)
        mean += chance * (process.evidence + 0.5 * (1 - length / HORIZON))
    assert mean == pytest.approx(1.0, abs=ROUNDING)
