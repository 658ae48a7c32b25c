import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.displacement import LARGEST_LOG_RATIO, compare

logprobs = st.floats(min_value=-9999.0, max_value=0.0)
weights = st.lists(st.floats(min_value=1e-6, max_value=1.0), min_size=2, max_size=8)


@st.composite
def scored_twice(draw: st.DrawFn) -> tuple[list[float], list[float], list[int], list[int]]:
    n = draw(st.integers(1, 30))
    ids = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    values = st.lists(logprobs, min_size=n, max_size=n)
    return draw(values), draw(values), draw(ids), draw(ids)


def test_a_halved_probability_displaces_by_a_half() -> None:
    found = compare([math.log(0.8)], [math.log(0.4)], [5], [5])
    assert found.displacement == pytest.approx(0.5)
    assert found.kl == pytest.approx(0.5 - 1 - math.log(0.5))


def test_a_raised_probability_does_not_displace() -> None:
    found = compare([math.log(0.4)], [math.log(0.8)], [5], [5])
    assert found.displacement == 0.0
    assert found.kl == pytest.approx(2 - 1 - math.log(2))


@given(weights, weights)
def test_over_all_tokens_the_expectations_are_total_variation_and_kl(
    p: list[float], q: list[float]
) -> None:
    n = min(len(p), len(q))
    p, q = ([w / sum(ws[:n]) for w in ws[:n]] for ws in (p, q))
    found = [compare([math.log(a)], [math.log(b)], [0], [0]) for a, b in zip(p, q, strict=True)]
    expected_displacement = sum(a * (f.displacement or 0.0) for a, f in zip(p, found, strict=True))
    expected_kl = sum(a * (f.kl or 0.0) for a, f in zip(p, found, strict=True))
    total_variation = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert expected_displacement == pytest.approx(total_variation, abs=1e-9)
    assert expected_kl == pytest.approx(kl, abs=1e-9)


@given(scored_twice())
def test_every_figure_is_in_its_range(
    scores: tuple[list[float], list[float], list[int], list[int]],
) -> None:
    found = compare(*scores)
    assert found.displacement is not None
    assert 0.0 <= found.displacement <= 1.0
    assert found.kl is not None
    assert 0.0 <= found.kl < math.inf
    assert found.agreement is not None
    assert 0.0 <= found.agreement <= 1.0
    assert (found.divergence is None) == (found.agreement == 1.0)


@given(scored_twice())
def test_a_build_is_not_displaced_from_itself(
    scores: tuple[list[float], list[float], list[int], list[int]],
) -> None:
    own, _, top, _ = scores
    found = compare(own, own, top, top)
    assert (found.displacement, found.kl, found.agreement) == (0.0, 0.0, 1.0)
    assert found.divergence is None


@given(scored_twice())
def test_the_order_of_the_tokens_matters_to_the_divergence_only(
    scores: tuple[list[float], list[float], list[int], list[int]],
) -> None:
    forwards = compare(*scores)
    backwards = compare(*(list(reversed(part)) for part in scores))  # type: ignore[arg-type]
    assert backwards.displacement == pytest.approx(forwards.displacement)
    assert backwards.kl == pytest.approx(forwards.kl)
    assert backwards.agreement == forwards.agreement


def test_agreement_and_divergence_are_of_the_greedy_choices() -> None:
    found = compare([-1.0] * 4, [-1.0] * 4, [7, 8, 9, 10], [7, 0, 9, 0])
    assert found.agreement == 0.5
    assert found.divergence == 1


def test_no_tokens_leave_nothing_to_say() -> None:
    found = compare([], [], [], [])
    assert (found.tokens, found.displacement, found.kl, found.agreement) == (0, None, None, None)
    assert found.is_finite


@pytest.mark.parametrize("broken", [math.nan, -math.inf, math.inf])
def test_a_number_that_is_none_is_reported_of_its_build(broken: float) -> None:
    of_own = compare([-1.0, broken], [-1.0, -1.0], [1, 1], [1, 1])
    of_other = compare([-1.0, -1.0], [broken, -1.0], [1, 1], [1, 1])
    assert (of_own.is_own_finite, of_own.is_other_finite, of_own.is_finite) == (False, True, False)
    assert (of_other.is_own_finite, of_other.is_other_finite) == (True, False)
    assert of_own.displacement is of_other.displacement is None


def test_a_logarithm_of_zero_as_vllm_writes_it_is_whole_displacement() -> None:
    found = compare([0.0], [-9999.0], [1], [2])
    assert found.displacement == 1.0
    assert found.kl == pytest.approx(9998.0)


def test_a_huge_ratio_is_capped_and_not_an_overflow() -> None:
    found = compare([-1e308], [0.0], [1], [1])
    assert found.kl == pytest.approx(math.exp(LARGEST_LOG_RATIO), rel=1e-6)


def test_a_tiny_displacement_keeps_its_digits() -> None:
    assert compare([-1.0], [-1.0 - 1e-12], [1], [1]).displacement == pytest.approx(1e-12, rel=1e-3)


def test_scores_of_different_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="scores of 2 and 1 tokens"):
        compare([-1.0, -1.0], [-1.0], [1, 1], [1, 1])
