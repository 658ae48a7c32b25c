import random
from collections import Counter
from collections.abc import Mapping
from itertools import product
from math import prod

import pytest

from penumbra.monitoring.stats.shift import ShiftTest
from penumbra.monitoring.stats.wealth import inflow_of

ALPHA = 0.01
HORIZON = 20_000
THEN = {"latin": 700, "none": 200, "han": 60, "cyrillic": 40}


def moved(by: float) -> dict[str, float]:
    """The reference with this much of it moved from Latin to Chinese."""
    shares = {name: count / 1000 for name, count in THEN.items()}
    return shares | {"latin": shares["latin"] - by, "han": shares["han"] + by}


def alarms_at(now: Mapping[str, float], count: int, seed: int, least: float = 0.2) -> int | None:
    """The observation at which the evidence reaches 1 / ALPHA; None: it does not."""
    drawn = random.Random(seed)
    test = ShiftTest(THEN, drawn.choices(list(THEN), list(THEN.values()), k=300), least, HORIZON)
    for number in range(1, count + 1):
        test.take(drawn.choices(list(now), list(now.values()))[0])
        if test.evidence >= 1 / ALPHA:
            return number
    return None


def test_expected_wealth_never_exceeds_one_at_the_largest_distance_allowed() -> None:
    reference, recent, least, length = {"a": 7, "b": 2, "c": 1}, "abcbcb", 0.2, 8
    now = {"a": 0.5, "b": 0.3, "c": 0.2}
    expected, has_bet = 0.0, False
    for drawn in product(now, repeat=length):
        test = ShiftTest(reference, recent, least, 100)
        for category in drawn:
            test.take(category)
        has_bet = has_bet or test.evidence != 0.5
        left_to_flow_in = inflow_of(100) * (100 - length)
        expected += prod(now[each] for each in drawn) * (test.evidence + left_to_flow_in)
    assert has_bet
    assert expected <= 1.0 + 1e-12


def test_an_equal_workload_gives_no_alarm() -> None:
    assert not any(alarms_at(moved(0.0), 3000, seed) for seed in range(40))


def test_a_small_shift_gives_none_however_certain_it_is() -> None:
    assert alarms_at(moved(0.1), HORIZON, 1) is None


def test_a_shift_as_large_as_allowed_gives_hardly_one() -> None:
    found = sum(alarms_at(moved(0.2), 3000, seed) is not None for seed in range(60))
    assert found <= 4  # 60 runs at most ALPHA each: five or more have a chance of 4e-4


@pytest.mark.parametrize(("by", "latest"), [(0.3, 2000), (0.4, 700), (0.7, 200)])
def test_a_larger_shift_is_found(by: float, latest: int) -> None:
    found = [alarms_at(moved(by), latest, seed) for seed in range(20)]
    assert None not in found


def test_a_category_that_was_never_seen_is_a_shift() -> None:
    found = alarms_at({"greek": 0.5, "latin": 0.5}, 300, 1)
    assert found is not None


def test_what_was_won_is_given_up_when_the_shift_is_over() -> None:
    test = ShiftTest({"a": 90, "b": 10}, "a" * 9 + "b", 0.2, HORIZON)
    for _ in range(100):
        test.take("b")
    assert test.evidence >= 1 / ALPHA
    for _ in range(10):
        test.take("a")
    assert test.distance <= 0.2
    assert test.evidence <= 0.5


def test_at_a_distance_of_one_nothing_is_a_shift() -> None:
    assert alarms_at({"greek": 1.0}, 2000, 1, least=1.0) is None


def test_distance_is_total_variation_and_says_what_grew() -> None:
    test = ShiftTest(Counter("aaab"), "aabb", 0.2, HORIZON)
    assert test.distance == pytest.approx(0.25)
    assert test.grown == ("b", 0.5, 0.25)
    assert ShiftTest(Counter("ab"), "abab", 0.2, HORIZON).grown is None


@pytest.mark.parametrize(("reference", "recent"), [({}, "a"), ({"a": 1}, "")])
def test_nothing_observed_is_no_reference(reference: dict[str, int], recent: str) -> None:
    with pytest.raises(ValueError, match="wanted a reference"):
        ShiftTest(reference, recent, 0.2, HORIZON)
