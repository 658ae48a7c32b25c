import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.shadow.recent_keys import RecentKeys


@given(st.lists(st.integers(0, 2**64 - 1), max_size=200))
def test_a_key_is_new_once(keys: list[int]) -> None:
    recent = RecentKeys(1000)
    for key in keys:
        recent.add(key)
        assert key in recent
        assert not recent.add(key)


def test_the_last_generation_is_remembered_whole_however_many_came_before() -> None:
    recent = RecentKeys(500)
    for key in range(10_000):
        recent.add(key)
    assert all(key in recent for key in range(9_500, 10_000))


def test_old_keys_are_forgotten_in_time() -> None:
    recent = RecentKeys(500)
    for key in range(3_000):
        recent.add(key)
    assert sum(key in recent for key in range(500)) < 25


@pytest.mark.parametrize("kind", ["counting", "hashes"])
def test_a_new_key_is_called_old_at_the_promised_rate(kind: str) -> None:
    dice = random.Random(4)
    keys = range(30_000) if kind == "counting" else [dice.getrandbits(64) for _ in range(30_000)]
    recent = RecentKeys(10_000, false_positives=0.01)
    for key in keys[:20_000]:
        recent.add(key)
    wrong = sum(key in recent for key in keys[20_000:])
    # Binomial, n = 10 000, p <= .01: above 150 with probability 1e-6.
    assert wrong <= 150


def test_memory_is_fixed_at_start() -> None:
    recent = RecentKeys(100_000)
    before = recent.size_bytes
    for key in range(1000):
        recent.add(key)
    assert recent.size_bytes == before < 400_000


@pytest.mark.parametrize(("capacity", "rate"), [(0, 0.01), (10, 0.0), (10, 1.0)])
def test_senseless_sizes_are_refused(capacity: int, rate: float) -> None:
    with pytest.raises(ValueError, match="capacity"):
        RecentKeys(capacity, rate)
