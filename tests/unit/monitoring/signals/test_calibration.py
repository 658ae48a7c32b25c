import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.calibration import (
    FACTOR,
    LEAST_OVER_AA,
    MOST,
    Reading,
    read_tolerance,
)

ALPHA = 0.0003


def read(values: list[float], aa: list[float] | None = None, **more: float) -> Reading:
    return read_tolerance(values, aa or [], more.pop("alpha", ALPHA), **more)


def test_a_tolerance_is_a_factor_over_the_mean_where_that_is_well_known() -> None:
    reading = read([0.02] * 10_000)
    assert reading.tolerance == pytest.approx(FACTOR * 0.02)
    assert reading.pairs == 10_000
    assert reading.mean == pytest.approx(0.02)


def test_a_tolerance_leaves_room_for_the_baselines_own_noise() -> None:
    reading = read([0.0] * 10_000, [0.002] * 5)
    assert reading.tolerance == pytest.approx(0.002 + LEAST_OVER_AA)
    assert (reading.aa_pairs, reading.aa_mean) == (5, pytest.approx(0.002))


def test_a_tolerance_is_no_less_than_the_upper_end_of_the_mean() -> None:
    draw = random.Random(1)
    values = [draw.betavariate(0.2, 9.8) for _ in range(200)]
    reading = read(values)
    assert reading.tolerance == reading.upper > FACTOR * reading.mean
    assert read(values, alpha=0.5).upper < reading.upper


def test_the_mean_exceeds_the_upper_end_no_more_often_than_it_may() -> None:
    draw = random.Random(2)
    over = 0
    for _ in range(400):
        values = [float(draw.random() < 0.02) for _ in range(300)]
        over += read(values, alpha=0.05).upper < 0.02
    assert over <= 0.05 * 400 + 3 * (0.05 * 0.95 * 400) ** 0.5


def test_no_tolerance_is_larger_than_the_most() -> None:
    reading = read([0.29] * 300)
    assert (reading.tolerance, reading.is_capped) == (MOST, True)
    assert not read([0.01] * 10_000).is_capped


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="found no values"):
        read([])


shares = st.lists(st.floats(0, 0.05), min_size=1, max_size=80)


@given(shares, shares)
def test_every_tolerance_keeps_the_rule(values: list[float], aa: list[float]) -> None:
    reading = read(values, aa, most=1.0)
    assert reading.tolerance >= FACTOR * reading.mean
    assert reading.tolerance >= reading.aa_mean + LEAST_OVER_AA
    assert reading.tolerance >= reading.upper >= reading.mean
