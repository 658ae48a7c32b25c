import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.answer import CHAT_PATH, COMPLETIONS_PATH
from penumbra.monitoring.signals.expectations import (
    COMPLETIONS_LIMIT_TOKENS,
    Expectations,
    expectations,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ENCODED = b'{"type":"object","properties":{"a":{"type":"integer"}}}'
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}


def wanted(path: str = CHAT_PATH, **body: Any) -> Expectations:
    return expectations(path, json.dumps(body).encode())


def user(text: Any) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "An earlier turn in English, long enough."},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": text},
    ]


def test_a_plain_chat_expects_one_text_in_its_own_writing() -> None:
    assert wanted(messages=user("What is the capital?")) == Expectations(writing="latin")


@pytest.mark.parametrize(
    ("body", "schema"),
    [
        ({"response_format": {"type": "json_object"}}, None),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, ENCODED),
        ({"response_format": {"type": "json_schema"}}, None),
        ({"structured_outputs": {"json": SCHEMA}}, ENCODED),
        ({"structured_outputs": {"json": ENCODED.decode()}}, ENCODED),
        ({"structured_outputs": {"json_object": True}}, None),
        ({"guided_json": SCHEMA}, ENCODED),
        ({"guided_json": ENCODED.decode()}, ENCODED),
    ],
)
@pytest.mark.parametrize("path", [CHAT_PATH, COMPLETIONS_PATH])
def test_json_is_expected_where_it_is_asked_for(
    path: str, body: dict[str, Any], schema: bytes | None
) -> None:
    found = wanted(path, **body)
    assert (found.wants_json, found.schema) == (True, schema)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "structural_tag", "format": {}}},
        {"structured_outputs": {"regex": "a+"}},
        {"structured_outputs": {"json_object": False}},
        {"guided_choice": ["a", "b"]},
    ],
)
def test_other_formats_are_not_json(body: dict[str, Any]) -> None:
    assert not wanted(**body).wants_json


def test_the_tools_and_their_schemas_are_known() -> None:
    bare = {"type": "function", "function": {"name": "now"}}
    assert wanted(tools=[TOOL, bare, {"type": "other"}]).tools == {"weather": ENCODED, "now": None}


@pytest.mark.parametrize(
    ("choice", "must_call"),
    [
        ("required", True),
        ({"type": "function", "function": {"name": "weather"}}, True),
        ("auto", False),
        ("none", False),
        (None, False),
    ],
)
def test_a_call_is_expected_where_one_must_be(choice: Any, must_call: bool) -> None:
    assert wanted(tools=[TOOL], tool_choice=choice).must_call == must_call


@pytest.mark.parametrize(
    ("path", "body", "limit"),
    [
        (CHAT_PATH, {}, None),
        (CHAT_PATH, {"max_tokens": 7}, 7),
        (CHAT_PATH, {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        (CHAT_PATH, {"max_tokens": None}, None),
        (CHAT_PATH, {"max_tokens": True}, None),
        (COMPLETIONS_PATH, {}, COMPLETIONS_LIMIT_TOKENS),
        (COMPLETIONS_PATH, {"max_tokens": 0}, 0),
    ],
)
def test_the_limit_is_what_the_engine_goes_by(
    path: str, body: dict[str, Any], limit: int | None
) -> None:
    assert wanted(path, **body).limit_tokens == limit


@pytest.mark.parametrize(
    ("path", "body", "choices"),
    [
        (CHAT_PATH, {"n": 3}, 3),
        (CHAT_PATH, {"n": None}, 1),
        (COMPLETIONS_PATH, {"prompt": "a", "n": 2}, 2),
        (COMPLETIONS_PATH, {"prompt": ["a", "b", "c"], "n": 2}, 6),
        (COMPLETIONS_PATH, {"prompt": [1, 2, 3]}, 1),
        (COMPLETIONS_PATH, {"prompt": [[1, 2], [3]]}, 2),
        (COMPLETIONS_PATH, {"prompt": []}, 1),
    ],
)
def test_there_is_a_choice_for_each_prompt_and_sample(
    path: str, body: dict[str, Any], choices: int
) -> None:
    assert wanted(path, **body).choices == choices


@pytest.mark.parametrize(
    ("text", "writing"),
    [
        ("Какая столица у Франции?", "cyrillic"),
        ([{"type": "text", "text": "Какая столица"}, {"type": "image_url"}], "cyrillic"),
        ("Переведи на английский: доброе утро", "none"),
        ("1 + 1 = ?", "none"),
        (None, "none"),
    ],
)
def test_the_last_user_text_says_which_writing_is_expected(text: Any, writing: str) -> None:
    assert wanted(messages=user(text)).writing == writing


def test_a_prompt_of_text_says_it_too() -> None:
    assert wanted(COMPLETIONS_PATH, prompt="Столица Франции - это").writing == "cyrillic"
    assert wanted(COMPLETIONS_PATH, prompt=["x", "Столица Франции - это"]).writing == "cyrillic"


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"{", b'"text"', b"[" * 100_000])
def test_a_body_that_cannot_be_read_expects_nothing(body: bytes) -> None:
    assert expectations(CHAT_PATH, body) == Expectations()


def test_another_path_expects_nothing() -> None:
    assert wanted("/v1/embeddings", n=3) == Expectations()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "text", "type", "function", "name", "parameters", "json"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)
FIELDS = (
    "messages", "prompt", "tools", "tool_choice", "response_format", "structured_outputs",
    "guided_json", "n", "max_tokens", "max_completion_tokens",
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(FIELDS), json_values),
    st.sampled_from([CHAT_PATH, COMPLETIONS_PATH]),
)
def test_reading_a_request_is_total(body: dict[str, Any], path: str) -> None:
    assert wanted(path, **body).choices >= 1
