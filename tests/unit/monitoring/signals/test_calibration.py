import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.calibration import (
    FACTOR,
    LEAST_OVER_AA,
    MOST,
    SLICE_PAIRS,
    STANDARD_ERRORS,
    Calibration,
    Refusal,
    calibrate,
)


def calibrated(*args: object, **kwargs: object) -> Calibration:
    found = calibrate(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(found, Calibration)
    return found


def test_a_tolerance_is_a_factor_over_the_mean_of_its_slice() -> None:
    found = calibrated({"a": [0.02] * 200, "b": [0.05] * 100}, {}, wanted=300)
    assert found.slices["a"].tolerance == pytest.approx(FACTOR * 0.02)
    assert found.slices["b"].tolerance == pytest.approx(FACTOR * 0.05)
    assert found.default.mean == pytest.approx(0.03)
    assert found.default.pairs == 300


def test_a_tolerance_leaves_room_for_the_baselines_own_noise() -> None:
    found = calibrated({"a": [0.001] * 100}, {"a": [0.002] * 5}, wanted=100)
    assert found.slices["a"].tolerance == pytest.approx(0.002 + LEAST_OVER_AA)
    assert (found.slices["a"].aa_pairs, found.slices["a"].aa_mean) == (5, pytest.approx(0.002))


def test_the_baselines_noise_is_of_the_slice_where_it_has_enough_values() -> None:
    values = {"a": [0.0] * SLICE_PAIRS, "b": [0.0] * SLICE_PAIRS}
    aa = {"a": [0.01] * SLICE_PAIRS, "b": [0.03] * (SLICE_PAIRS - 1)}
    found = calibrated(values, aa, wanted=2)
    pooled = (0.01 * SLICE_PAIRS + 0.03 * (SLICE_PAIRS - 1)) / (2 * SLICE_PAIRS - 1)
    assert found.slices["a"].aa_mean == pytest.approx(0.01)
    assert found.slices["b"].aa_mean == pytest.approx(pooled)


def test_a_mean_of_scattered_values_gets_the_room_that_it_needs() -> None:
    values = [0.0] * 45 + [0.2] * 5
    reading = calibrated({"a": values}, {}, wanted=50).slices["a"]
    error = math.sqrt(sum((v - 0.02) ** 2 for v in values) / 49 / 50)
    assert reading.standard_error == pytest.approx(error)
    assert reading.tolerance == pytest.approx(0.02 + STANDARD_ERRORS * error)
    assert reading.tolerance > FACTOR * reading.mean


def test_a_slice_with_few_values_has_no_tolerance_of_its_own() -> None:
    found = calibrated({"a": [0.01] * 100, "b": [0.01] * (SLICE_PAIRS - 1), "c": []}, {}, wanted=50)
    assert set(found.slices) == {"a"}
    assert found.too_few == ("b",)


def test_too_few_pairs_are_refused_with_the_reason() -> None:
    assert calibrate({"a": [0.01] * 99}, {}, wanted=100) == Refusal("99 pairs, 100 are needed")
    assert calibrate({}, {}, wanted=2) == Refusal("0 pairs, 2 are needed")


def test_no_tolerance_is_larger_than_the_most() -> None:
    found = calibrated({"a": [0.29] * 300, "b": [0.01] * 200}, {}, wanted=300)
    assert (found.slices["a"].tolerance, found.slices["a"].is_capped) == (MOST, True)
    assert (found.slices["b"].tolerance, found.slices["b"].is_capped) == (0.01 * FACTOR, False)
    assert found.default.is_capped == (found.default.mean * FACTOR > MOST)
    assert calibrated({"a": [0.29] * 300}, {}, wanted=300).default.tolerance == MOST


def test_the_rule_is_part_of_the_record() -> None:
    found = calibrated({"a": [0.01] * 30}, {}, wanted=30, most=0.5)
    assert found.rule == (
        "max(1.3 x mean, aa_mean + 0.005, mean + 2 x standard_error), at most 0.5"
    )


def test_a_wish_for_fewer_than_two_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted is 1"):
        calibrate({"a": [0.1]}, {}, wanted=1)


shares = st.lists(st.floats(0, 0.05), min_size=2, max_size=80)


@given(st.dictionaries(st.sampled_from("abc"), shares, min_size=1), shares)
def test_every_tolerance_keeps_the_rule(values: dict[str, list[float]], aa: list[float]) -> None:
    found = calibrate(values, {"a": aa}, wanted=2, most=1.0)
    assert isinstance(found, Calibration)
    for reading in (found.default, *found.slices.values()):
        assert reading.tolerance >= FACTOR * reading.mean
        assert reading.tolerance >= reading.aa_mean + LEAST_OVER_AA
    assert sum(map(len, values.values())) == found.default.pairs
