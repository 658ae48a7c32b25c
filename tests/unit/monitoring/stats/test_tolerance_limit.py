"""The limit that a share of a distribution exceeds, read from samples of it."""

import random
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.stats.tolerance_limit import ToleranceLimit, block_size, most_above


def chance_of_at_most(events: int, trials: int, share: float) -> float:
    return sum(comb(trials, n) * share**n * (1 - share) ** (trials - n) for n in range(events + 1))


@given(
    st.integers(1, 300),
    st.floats(0.01, 0.9),
    st.floats(1e-9, 0.5),
)
def test_the_values_above_a_limit_are_as_many_as_alpha_allows(
    count: int, share: float, alpha: float
) -> None:
    above = most_above(count, share, alpha)
    assert above < count
    if above >= 0:
        assert chance_of_at_most(above, count, share) <= alpha * (1 + 1e-9)
    if above + 1 < count:
        assert chance_of_at_most(above + 1, count, share) > alpha * (1 - 1e-9)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("alpha", [1e-30, 1e-6, 0.01])
def test_a_block_is_large_enough_for_a_limit(share: float, alpha: float) -> None:
    assert most_above(block_size(share, alpha), share, alpha) >= 0


def test_there_is_no_limit_before_a_block_is_full() -> None:
    read = ToleranceLimit(0.2, 1e-4)
    for number in range(read.wanted - 1):
        read.add(number)
    assert (read.limit, read.count, read.wanted) == (None, 249, 250)
    read.add(0.0)
    above = most_above(250, 0.2, 1e-4)
    assert (read.limit, read.count) == (248 - above, 0)


def test_the_block_with_the_largest_values_decides() -> None:
    read = ToleranceLimit(0.5, 0.01)
    limits = []
    for level in (1.0, 3.0, 2.0):
        for _ in range(read.wanted):
            read.add(level)
        limits.append(read.limit)
    assert limits == [1.0, 3.0, 3.0]


def test_more_than_the_share_exceeds_a_limit_as_seldom_as_promised() -> None:
    draws, low, alpha = random.Random(7), 0, 0.05
    for _ in range(400):
        read = ToleranceLimit(0.2, alpha)
        for _ in range(read.wanted):
            read.add(draws.random())
        assert read.limit is not None
        low += read.limit < 0.8  # of uniform values more than a fifth exceed it
    # 400 draws at 5 %: at most 38 but for a chance of 1e-4; alpha is nearly used up.
    assert 2 <= low <= 38
