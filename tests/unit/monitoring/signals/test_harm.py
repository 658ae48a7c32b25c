import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.answer import Choice, ToolCall
from penumbra.monitoring.signals.harm import (
    Answer,
    Check,
    Expectations,
    accuse,
    checks,
    harm,
    judge,
)
from penumbra.serve.demo.tasks import SLICES, make_tasks

LOOP = "The river of the town " * 20
RUSSIAN = "Столица Франции называется Париж."
ENGLISH = "The capital of France is Paris."
PROSE = " ".join(f"In case {i} it depends on what you want." for i in range(15))
SCHEMA = json.dumps({"type": "object", "required": ["a"]}).encode()
TOOLS: dict[str, bytes | None] = {
    "weather": json.dumps(
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    ).encode(),
    "now": None,
}


def said(text: str = "", finish_reason: str | None = "stop", **fields: Any) -> Answer:
    return Answer((Choice(text=text, finish_reason=finish_reason, **fields),))


def called(name: str, arguments: str) -> Answer:
    return said(finish_reason="tool_calls", tool_calls=(ToolCall(name, arguments),))


ALONE: list[tuple[Check, Expectations, Answer, Answer]] = [
    (Check.INCOMPLETE, Expectations(), said("so far", None), said("so far")),
    (
        Check.INCOMPLETE,
        Expectations(),
        msgspec.structs.replace(said("a"), has_error=True),
        said("a"),
    ),
    (Check.EMPTY, Expectations(), said(" \n"), said(".")),
    (Check.EMPTY, Expectations(), said(reasoning="hm"), said("a", reasoning="hm")),
    (
        Check.EMPTY,
        Expectations(choices=2),
        said("a"),
        Answer((Choice(0, "a", finish_reason="stop"), Choice(1, "b", finish_reason="stop"))),
    ),
    (Check.JSON, Expectations(wants_json=True), said("{'a': 1}"), said('{"a": 1}')),
    (Check.JSON, Expectations(wants_json=True), said('{"a": 1', "length"), said("[]")),
    (
        Check.JSON_SCHEMA,
        Expectations(wants_json=True, schema=SCHEMA),
        said('{"b": 1}'),
        said('{"a": 1}'),
    ),
    (
        Check.TOOL_ARGUMENTS,
        Expectations(tools=TOOLS),
        called("weather", '{"city": 1}'),
        called("weather", '{"city": "Oslo"}'),
    ),
    (
        Check.TOOL_ARGUMENTS,
        Expectations(tools=TOOLS),
        called("weather", '{"city": "Os'),
        called("now", ""),
    ),
    (Check.TOOL_ARGUMENTS, Expectations(tools=TOOLS), called("now", "[]"), called("now", "{}")),
    (
        Check.TOOL_ARGUMENTS,
        Expectations(tools=TOOLS),
        said('<tool_call>{"name": "weather"'),
        said("It is sunny."),
    ),
    (Check.UNKNOWN_TOOL, Expectations(tools=TOOLS), called("wheather", "{}"), called("now", "{}")),
    (Check.UNKNOWN_TOOL, Expectations(), called("now", "{}"), said("a")),
    (
        Check.MISSING_TOOL,
        Expectations(tools=TOOLS, must_call=True),
        said("I will look."),
        called("now", "{}"),
    ),
    (Check.CODE, Expectations(), said("```python\nx = (\n```"), said("```python\nx = 1\n```")),
    (Check.REPETITION, Expectations(), said(LOOP), said("The river of the town.")),
    (Check.REFUSAL, Expectations(), said("I'm sorry, I can't help with that."), said(ENGLISH)),
    (Check.REFUSAL, Expectations(), said(refusal="No."), said(ENGLISH)),
]
BESIDE: list[tuple[Check, Expectations, Answer, Answer]] = [
    (Check.JSON, Expectations(), said("Sure! {'a': 1}"), said('{"a": 1}')),
    (Check.SCRIPT, Expectations(writing="cyrillic"), said(ENGLISH), said(RUSSIAN)),
    (
        Check.SCRIPT,
        Expectations(writing="japanese"),
        said("法国的首都是巴黎这座城市。"),
        said("フランスの首都はパリという町です。"),
    ),
    (Check.LENGTH, Expectations(), said("It is", "length"), said("It is so.")),
    (Check.LENGTH, Expectations(limit_tokens=64), said("It is", "length"), said("It is so.")),
    (Check.LENGTH_DRIFT, Expectations(usual_chars=600.0), said("No."), said(PROSE)),
    (Check.LENGTH_DRIFT, Expectations(usual_chars=10.0), said(PROSE), said("No.")),
]
SAME: list[tuple[Expectations, Answer, Answer]] = [
    # The prompt may want a translation, and neither answer is in its writing.
    (Expectations(), said(ENGLISH), said(RUSSIAN)),
    (Expectations(writing="han"), said(ENGLISH), said(RUSSIAN)),
    # Too little text to tell, or none.
    (Expectations(writing="cyrillic"), said("OK"), said(RUSSIAN)),
    # A limit so small that being cut is chance.
    (Expectations(limit_tokens=4), said("It is", "length"), said("It is so.")),
    (Expectations(), said("It is", "length"), said("It was", "length")),
    # Nothing is known about the usual length.
    (Expectations(), said("No."), said(PROSE)),
    (Expectations(limit_tokens=0), said(""), said("")),
    (Expectations(wants_json=True), called("now", "{}"), called("now", "{}")),
]


@pytest.mark.parametrize(("check", "wanted", "bad", "good"), ALONE)
def test_an_answer_fails_a_check_by_itself(
    check: Check, wanted: Expectations, bad: Answer, good: Answer
) -> None:
    assert checks(wanted, bad) == {check}
    assert not checks(wanted, good)
    assert accuse(wanted, good, good) == (frozenset(), frozenset())


@pytest.mark.parametrize(("check", "wanted", "bad", "good"), BESIDE)
def test_an_answer_fails_a_check_beside_the_other(
    check: Check, wanted: Expectations, bad: Answer, good: Answer
) -> None:
    assert not checks(wanted, bad) | checks(wanted, good)
    assert accuse(wanted, bad, good) == ({check}, frozenset())


@pytest.mark.parametrize(("check", "wanted", "bad", "good"), ALONE + BESIDE)
def test_harm_is_of_the_one_that_failed(
    check: Check, wanted: Expectations, bad: Answer, good: Answer
) -> None:
    worse, better = judge(wanted, bad, good), judge(wanted, good, bad)
    assert (worse.harm, better.harm) == (1, -1)
    assert check in worse.failed
    assert check in better.failed_baseline
    assert judge(wanted, bad, bad).harm == 0


@pytest.mark.parametrize(("wanted", "one", "other"), SAME)
def test_undecidable_difference_accuses_neither_answer(
    wanted: Expectations, one: Answer, other: Answer
) -> None:
    assert accuse(wanted, one, other) == (frozenset(), frozenset())


def test_every_check_has_a_case() -> None:
    cases = {check for check, *_ in ALONE + BESIDE} | {Check.NO_ANSWER}
    assert cases == set(Check)


def test_no_answer_is_a_failure() -> None:
    good = said("a")
    assert judge(Expectations(), None, good).failed == ("no_answer",)
    assert judge(Expectations(), None, good).harm == 1
    assert judge(Expectations(), good, None).harm == -1
    assert judge(Expectations(), None, None).harm == 0


def test_harm_is_the_difference_of_failures() -> None:
    bad, good = frozenset({"json"}), frozenset[str]()
    assert [harm(a, b) for a in (None, bad, good) for b in (None, bad, good)] == [
        0, 0, 1, 0, 0, 1, -1, -1, 0,
    ]  # fmt: skip


def test_one_bad_choice_fails_the_answer() -> None:
    choices = (Choice(0, "a", finish_reason="stop"), Choice(1, "", finish_reason="stop"))
    assert checks(Expectations(choices=2), Answer(choices)) == {Check.EMPTY}


def test_a_judgement_is_stored_as_plain_words() -> None:
    judgement = judge(Expectations(), said(LOOP), None)
    assert msgspec.json.decode(msgspec.json.encode(judgement)) == {
        "harm": 0,
        "failed": ["repetition"],
        "failed_baseline": ["no_answer"],
    }


texts = st.sampled_from(
    ["", "a", "{}", '{"a": 1}', "[1", LOOP, PROSE, RUSSIAN, ENGLISH, "```py\nx = (\n```"]
) | st.text(max_size=20)
choices = st.builds(
    Choice,
    index=st.integers(0, 3),
    text=texts,
    reasoning=st.sampled_from(["", PROSE]),
    refusal=st.sampled_from(["", "", "No."]),
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", None]),
    tool_calls=st.lists(
        st.builds(
            ToolCall,
            st.sampled_from(["weather", "now", "other"]),
            st.sampled_from(["{}", "", '{"city": "Oslo"}', "[", "null"]),
        ),
        max_size=2,
    ).map(tuple),
)
answers = st.builds(
    Answer,
    choices=st.lists(choices, min_size=1, max_size=3).map(tuple),
    has_error=st.booleans(),
)
wishes = st.builds(
    Expectations,
    choices=st.integers(1, 3),
    limit_tokens=st.sampled_from([None, 0, 4, 64]),
    wants_json=st.booleans(),
    schema=st.sampled_from([None, SCHEMA]),
    tools=st.sampled_from([{}, TOOLS]),
    must_call=st.booleans(),
    writing=st.sampled_from(["none", "latin", "cyrillic"]),
    usual_chars=st.sampled_from([None, 5.0, 600.0]),
)


@given(wishes, st.none() | answers, st.none() | answers)
def test_exchanging_the_builds_turns_harm_around(
    wanted: Expectations, one: Answer | None, other: Answer | None
) -> None:
    there, back = judge(wanted, one, other), judge(wanted, other, one)
    assert there.harm in (-1, 0, 1)
    assert there.harm == -back.harm
    assert (there.failed, there.failed_baseline) == (back.failed_baseline, back.failed)


@given(wishes, answers)
def test_a_build_does_no_harm_beside_itself(wanted: Expectations, answer: Answer) -> None:
    assert judge(wanted, answer, answer).harm == 0
    assert accuse(wanted, answer, answer) == (frozenset(), frozenset())


@given(wishes, answers, answers)
def test_of_each_check_at_most_one_is_accused(
    wanted: Expectations, one: Answer, other: Answer
) -> None:
    accused, accused_other = accuse(wanted, one, other)
    assert not accused & accused_other


@given(wishes, answers, answers)
def test_the_order_of_the_choices_does_not_matter(
    wanted: Expectations, one: Answer, other: Answer
) -> None:
    expected = judge(wanted, one, other)
    for shuffled in itertools.permutations(one.choices):
        assert judge(wanted, msgspec.structs.replace(one, choices=shuffled), other) == expected


@pytest.mark.parametrize("slice_name", SLICES)
def test_the_right_answers_of_the_demo_fail_nothing(slice_name: str) -> None:
    for task in make_tasks(slice_name, 20, seed=1):
        assert not checks(Expectations(limit_tokens=96), said(task.answer))


def test_an_answer_that_is_wrong_and_well_formed_is_not_seen() -> None:
    right, wrong = said('{"name": "Ada", "age": 36}'), said('{"name": "Eve", "age": 63}')
    assert judge(Expectations(wants_json=True), wrong, right).harm == 0


def test_a_refusal_counts_only_where_the_other_builds_would_be_seen() -> None:
    refused = said("I'm sorry, but I can't help with that.")
    polish = said("Przykro mi, ale nie mogę pomóc w tej sprawie, to nie jest możliwe.")
    assert judge(Expectations(), refused, polish).harm == 0
    assert judge(Expectations(), polish, refused).harm == 0
    assert judge(Expectations(), refused, said(ENGLISH)).harm == 1
    assert judge(Expectations(), refused, refused).failed == ("refusal",)


def test_technical_words_do_not_make_an_answer_one_in_another_writing() -> None:
    wanted = Expectations(writing="cyrillic")
    mixed = said("Вызов asyncio.gather returns list; use TaskGroup, create_task and timeout")
    assert judge(wanted, mixed, said(RUSSIAN)).harm == 0
    assert judge(wanted, said(ENGLISH), said(RUSSIAN)).harm == 1
