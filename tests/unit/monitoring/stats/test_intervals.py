import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.monitoring.stats.betting import bin_of
from penumbra.monitoring.stats.intervals import lower_end, upper_end

COUNTS = st.dictionaries(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(1, 400), min_size=1)


def ends(counts: dict[float, int], low: float = -1.0) -> tuple[float, float]:
    bins = {bin_of(value): count for value, count in counts.items()}
    return lower_end(bins, low, 1.0, 0.05), upper_end(bins, low, 1.0, 0.05)


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_interval_without_observations_is_the_whole_range(low: float) -> None:
    assert ends({}, low) == (low, 1.0)


@settings(deadline=None, max_examples=40)
@given(COUNTS)
def test_interval_holds_the_mean_of_what_was_observed(counts: dict[float, int]) -> None:
    lower, upper = ends(counts)
    mean = sum(value * count for value, count in counts.items()) / sum(counts.values())
    assert lower <= mean <= upper


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60))
def test_interval_holds_the_mean_although_observations_are_binned(values: list[float]) -> None:
    bins: dict[int, int] = {}
    for value in values:
        bins[bin_of(value)] = bins.get(bin_of(value), 0) + 1
    lower, upper = lower_end(bins, 0.0, 1.0, 0.05), upper_end(bins, 0.0, 1.0, 0.05)
    assert lower <= sum(values) / len(values) + 1e-12
    assert upper >= sum(values) / len(values) - 1e-12


def test_interval_narrows_with_observations() -> None:
    few, many = ends({0.0: 96, 1.0: 4}), ends({0.0: 9600, 1.0: 400})
    assert few[0] < many[0] < 0.04 < many[1] < few[1]
    assert many[1] - many[0] < 0.015


@settings(deadline=None, max_examples=25)
@given(COUNTS)
def test_interval_moves_up_with_a_worse_observation(counts: dict[float, int]) -> None:
    worse = {**counts, 1.0: counts.get(1.0, 0) + 20}
    assert ends(worse)[0] >= ends(counts)[0]
