import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.decode_gap import LIMIT, decode_gap, gap

logprobs = st.lists(st.floats(min_value=-9999.0, max_value=0.0), min_size=1, max_size=30)
gaps = st.floats(min_value=0.0, max_value=1.0)


def test_a_halved_probability_is_a_gap_of_a_half_in_either_direction() -> None:
    assert gap([math.log(0.8)], [math.log(0.4)]) == pytest.approx(0.5)
    assert gap([math.log(0.4)], [math.log(0.8)]) == pytest.approx(0.5)


def test_decoding_that_is_prefill_bit_by_bit_has_no_gap() -> None:
    assert gap([-0.1, -9999.0, 0.0], [-0.1, -9999.0, 0.0]) == 0.0


@given(logprobs, st.randoms(use_true_random=False))
def test_a_gap_is_a_share_and_symmetric(values: list[float], random: object) -> None:
    other = list(values)
    random.shuffle(other)  # type: ignore[attr-defined]
    found = gap(values, other)
    assert found is not None
    assert 0.0 <= found <= 1.0
    assert found == pytest.approx(gap(other, values))


@pytest.mark.parametrize("broken", [math.nan, -math.inf, math.inf])
def test_without_finite_numbers_there_is_no_gap(broken: float) -> None:
    assert gap([], []) is None
    assert gap([broken], [-1.0]) is None
    assert gap([-1.0], [broken]) is None


def test_log_probabilities_of_other_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        gap([-1.0], [-1.0, -2.0])


@given(gaps, gaps)
def test_exchanging_the_builds_turns_the_sign_so_equal_builds_have_mean_zero(
    one: float, other: float
) -> None:
    assert decode_gap(one, other) == -decode_gap(other, one)
    assert -LIMIT <= decode_gap(one, other) <= LIMIT


def test_a_gap_that_both_builds_have_is_no_evidence() -> None:
    assert decode_gap(0.04, 0.04) == 0.0
    assert decode_gap(0.9, 0.5) == 0.0


def test_damage_in_the_candidates_decoding_alone_is_worse() -> None:
    assert decode_gap(0.05, 0.0) == pytest.approx(0.05)
