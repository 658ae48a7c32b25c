import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.stats.rolling_quantile import RollingQuantile

GROWTH = 1.04


def test_with_too_few_values_there_is_no_answer() -> None:
    recent = RollingQuantile(least=50)
    for _ in range(49):
        recent.add(1.0, 0.0)
    assert recent.value(0.0) is None
    recent.add(1.0, 0.0)
    assert recent.value(1.0) == pytest.approx(1.0, rel=0.04)


@given(st.lists(st.floats(0.001, 1000), min_size=50, max_size=300))
def test_the_answer_is_the_quantile_or_up_to_four_percent_above(values: list[float]) -> None:
    recent = RollingQuantile(0.9, least=50)
    for value in values:
        recent.add(value, 0.0)
    wanted = sorted(values)[math.ceil(0.9 * len(values)) - 1]
    found = recent.value(0.0)
    assert found is not None
    assert wanted / 1.000001 <= found <= wanted * GROWTH * 1.000001


def test_what_is_two_generations_old_is_forgotten() -> None:
    recent = RollingQuantile(0.9, least=50, generation_seconds=60.0)
    generator = random.Random(1)
    for second in range(60):
        recent.add(10.0 + generator.random(), float(second))
    for second in range(60, 180):
        recent.add(1.0, float(second))
    assert recent.value(180.0) == pytest.approx(1.0, rel=0.04)


def test_after_a_long_silence_nothing_is_known() -> None:
    recent = RollingQuantile(least=1, generation_seconds=60.0)
    recent.add(1.0, 0.0)
    assert recent.value(0.0) is not None
    assert recent.value(59.0) is not None
    assert recent.value(61.0) is not None
    assert recent.value(1000.0) is None


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e9])
def test_a_value_out_of_range_is_counted_at_its_end(value: float) -> None:
    recent = RollingQuantile(least=1)
    recent.add(value, 0.0)
    found = recent.value(0.0)
    assert found is not None
    assert 0 < found < 2000


def test_the_answer_is_recomputed_at_most_once_a_second() -> None:
    recent = RollingQuantile(least=1)
    recent.add(1.0, 0.0)
    first = recent.value(0.0)
    for _ in range(100):
        recent.add(100.0, 0.5)
    assert recent.value(0.9) == first
    assert recent.value(1.1) == pytest.approx(100.0, rel=0.04)
