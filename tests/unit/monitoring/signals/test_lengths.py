import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.answer import Answer, Choice, ToolCall
from penumbra.monitoring.signals.lengths import (
    LEAST_ANSWERS,
    LEAST_CHARS,
    RATIO,
    UsualLengths,
    chars,
    has_drifted,
)


def answer_of(length: int) -> Answer:
    return Answer((Choice(text="x" * length),))


def test_everything_that_was_written_counts() -> None:
    call = ToolCall("f", "12345")
    answer = Answer((Choice(0, "ab", "thinking"), Choice(1, "c", tool_calls=(call,))))
    assert chars(answer) == 2 + 8 + 1 + 5


def test_nothing_is_usual_before_there_are_enough_answers() -> None:
    lengths = UsualLengths()
    for _ in range(LEAST_ANSWERS - 1):
        lengths.note("a", answer_of(500))
    assert lengths.usual("a") is None
    lengths.note("a", answer_of(500))
    assert lengths.usual("a") == 500.0
    assert lengths.usual("b") is None


def test_the_usual_length_is_a_recent_median() -> None:
    lengths = UsualLengths()
    for length in [10] * 200 + [400] * 60 + [90_000] * 3:
        lengths.note("a", answer_of(length))
    assert lengths.usual("a") == 400.0


@pytest.mark.parametrize(
    ("length", "other", "usual", "is_drifted"),
    [
        (30, 600, 500.0, True),  # stopped short
        (600, 30, 500.0, False),
        (3000, 500, 500.0, True),  # rambles
        (500, 3000, 500.0, False),
        (30, 600, 40.0, False),  # the long one is unusual here
        (600, 30, 40.0, True),
        (500, 1500, 500.0, False),  # not more than the ratio
        (1500, 500, 500.0, False),
        (10, 190, 190.0, False),  # both short
        (30, 600, None, False),
        (600, 30, None, False),
    ],
)
def test_the_unusual_one_of_two_lengths_has_drifted(
    length: int, other: int, usual: float | None, is_drifted: bool
) -> None:
    assert has_drifted(length, other, usual) == is_drifted


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.none() | st.floats(0, 1e6))
def test_at_most_one_of_two_has_drifted(one: int, other: int, usual: float | None) -> None:
    first, second = has_drifted(one, other, usual), has_drifted(other, one, usual)
    assert not (first and second)
    if first or second:
        assert max(one, other) >= LEAST_CHARS
        assert max(one, other) > RATIO * min(one, other)
