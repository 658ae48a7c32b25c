"""Answers as clients got them: every status has a code, and a minute of them is judged in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.answers import (
    FAILED,
    JUDGED,
    REFUSED,
    AnswerCode,
    AnswerCount,
    by_model,
    code_of,
    find_problems,
)

COUNTS = st.builds(
    AnswerCount,
    st.sampled_from(["demo", "org/chat"]),
    st.sampled_from(["full", "int8"]),
    st.sampled_from([*AnswerCode, "of_a_newer_gateway"]),
    st.integers(0, 10_000),
)


def problems(*counts: tuple[str, str, int]) -> tuple[str, ...]:
    return find_problems(by_model(AnswerCount("demo", *count) for count in counts))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (200, "2xx"),
        (204, "2xx"),
        (302, "3xx"),
        (400, "4xx"),
        (401, "401"),
        (403, "403"),
        (404, "404"),
        (422, "4xx"),
        (429, "429"),
        (499, "4xx"),
        (500, "5xx"),
        (529, "5xx"),
        (799, "5xx"),
    ],
)
def test_every_status_has_a_code(status: int, code: str) -> None:
    assert code_of(status) == code


def test_no_code_is_both_failed_and_refused() -> None:
    assert not FAILED & REFUSED
    assert AnswerCode.BROKEN_OFF not in JUDGED
    assert AnswerCode.CLIENT_ERROR not in FAILED | REFUSED | JUDGED


def test_failed_answers_are_told_with_their_share_and_their_cause() -> None:
    assert problems(("full", "2xx", 63), ("full", "5xx", 37)) == (
        "37 % of demo's answers failed in the last minute (5xx of full)",
    )


def test_the_most_frequent_cause_comes_first() -> None:
    assert problems(
        ("full", "2xx", 900),
        ("full", "broken_off", 5),
        ("int8", "5xx", 9),
        ("full", "unanswered", 7),
    ) == (
        "2.3 % of demo's answers failed in the last minute"
        " (5xx of int8, no answer of full, broken off of full)",
    )


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_refusals_of_a_variant_are_told_apart(code: AnswerCode) -> None:
    assert problems(("int8", code, 12), ("full", "2xx", 88)) == (
        f"12 % of demo's answers were refusals in the last minute ({code} of int8)",
    )


@pytest.mark.parametrize("code", sorted(FAILED))
def test_a_model_of_which_every_answer_fails_is_told_at_once(code: AnswerCode) -> None:
    assert problems(("full", code, 3))[0].startswith("100 % of demo's answers failed")


@pytest.mark.parametrize(
    "counts",
    [
        [],
        [("full", "2xx", 1000)],
        [("full", "2xx", 1000), ("full", "5xx", 2)],
        [("full", "2xx", 1000), ("full", "5xx", 9)],
        [("full", "5xx", 2)],
        [("full", "4xx", 1000)],
        [("full", "2xx", 1000), ("full", "404", 49)],
        [("full", "404", 4)],
        [("full", "of_a_newer_gateway", 1000)],
    ],
)
def test_little_and_what_clients_do_wrong_is_no_problem(counts: list[tuple[str, str, int]]) -> None:
    assert problems(*counts) == ()


@given(st.lists(COUNTS, max_size=40))
def test_sums_over_gateways_lose_nothing(counts: list[AnswerCount]) -> None:
    models = by_model(counts)
    assert sum(part.count for model in models for part in model.counts) == sum(
        count.count for count in counts
    )
    for model in models:
        assert 0 <= model.failed <= model.answers
        assert 0 <= model.refused <= model.answers
        keys = [(part.variant, part.code) for part in model.counts]
        assert len(set(keys)) == len(keys)
