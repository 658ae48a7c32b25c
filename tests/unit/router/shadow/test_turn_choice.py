"""Every turn of a conversation has the same chance to be compared."""

import random
from collections import Counter

import pytest

from penumbra.router.shadow.turn_choice import MOST_CONVERSATIONS, MOST_TURNS, TurnChoice


def first_chosen(lengths: list[int], seed: int = 1, at_once: int = 200) -> list[int]:
    """The turn that is compared of each conversation, in the order in which they began; 0: none.

    Conversations of these lengths go on side by side, and each is compared once.
    """
    draw, choice = random.Random(seed), TurnChoice()
    waiting = list(enumerate(lengths))
    open_now: list[list[int]] = []
    found = [0] * len(lengths)
    while waiting or open_now:
        while waiting and len(open_now) < at_once:
            key, length = waiting.pop(0)
            open_now.append([key, length, 0])
        each = draw.choice(open_now)
        each[2] += 1
        key, length, turn = each
        if not found[key] and choice.chooses(key, draw.random()):
            found[key] = turn
        elif found[key]:
            choice.chooses(key, draw.random())  # it is counted all the same
        if turn == length:
            open_now.remove(each)
    return found


def test_single_questions_are_all_compared() -> None:
    assert first_chosen([1] * 500) == [1] * 500


@pytest.mark.parametrize("turns", [2, 5, 20])
def test_each_turn_of_equally_long_conversations_has_the_same_chance(turns: int) -> None:
    found = first_chosen([turns] * 3_000)[600:]  # the first ones did not know the lengths
    counted = Counter(found)
    assert set(counted) <= set(range(1, turns + 1))
    expected = len(found) / turns
    assert all(abs(counted[turn] - expected) < 6 * expected**0.5 for turn in range(1, turns + 1))


def test_the_compared_requests_are_spread_as_the_traffic_is() -> None:
    draw = random.Random(3)
    lengths = [draw.choice([1, 20]) for _ in range(4_000)]
    found = first_chosen(lengths, seed=4)[1_000:]
    single = sum(
        turn > 0 for turn, length in zip(found, lengths[1_000:], strict=True) if length == 1
    )
    late = sum(turn > 10 for turn in found)
    compared = sum(turn > 0 for turn in found)
    # One request of 10.5 is a single question's; half of the others are late turns.
    assert 0.05 < single / compared < 0.2
    assert 0.35 < late / compared < 0.55


def test_a_choice_depends_on_nothing_but_the_past_and_the_draw() -> None:
    first, second = TurnChoice(), TurnChoice()
    draw = random.Random(5)
    for _ in range(2_000):
        key, value = draw.randrange(100), draw.random()
        assert first.chooses(key, value) == second.chooses(key, value)


def test_conversations_that_never_end_take_no_more_memory() -> None:
    choice = TurnChoice()
    for key in range(MOST_CONVERSATIONS + 100):
        choice.chooses(key, 0.5)
    assert len(choice._turns) == MOST_CONVERSATIONS
    for _ in range(3 * MOST_TURNS):
        choice.chooses(-1, 0.999)
    assert len(choice._counts) == MOST_TURNS


def test_a_prompt_that_comes_all_day_does_not_keep_others_from_being_compared() -> None:
    draw, choice = random.Random(6), TurnChoice()
    taken = []
    for key in range(4_000):
        for _ in range(9):
            choice.chooses(-1, draw.random())
        taken.append(choice.chooses(key, draw.random()))
    # While few conversations are known, its first turns weigh much.
    assert sum(taken[2_000:]) > 0.95 * 2_000
