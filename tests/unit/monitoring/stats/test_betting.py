import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.stats.betting import Table, bets_against, bets_for, bin_bounds, bin_of

UNIT = st.floats(-1.0, 1.0)


@given(UNIT)
def test_bin_holds_its_observation(value: float) -> None:
    low, high = bin_bounds(bin_of(value))
    assert low <= value <= high


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_bin_of_a_discrete_observation_is_exact(value: float) -> None:
    assert bin_bounds(bin_of(value)) == (value, value)


@given(st.floats(0.001, 0.999), UNIT)
def test_no_bet_can_lose_everything(tolerance: float, value: float) -> None:
    gap = value - tolerance
    assert min(1.0 + bet * gap for bet in bets_against(tolerance, -1.0)) >= 0.1 - 1e-12
    assert min(1.0 - bet * gap for bet in bets_for(tolerance, 1.0)) >= 0.1 - 1e-12


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.001, 1.001])
def test_observation_outside_the_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="found the observation"):
        Table(0.02, 0.0, 1.0).bet(value)


@pytest.mark.parametrize("tolerance", [math.nan, 0.0, 1.0, -0.5])
def test_tolerance_outside_the_range_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="found the tolerance"):
        Table(tolerance, 0.0, 1.0)
