from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.scripts import SCRIPTS, dominant_script
from penumbra.router.flags.request_features import CODE_CHARS, FIELDS, SCRIPT_CHARS, RequestFeatures
from tests.support.routing_tables import chat

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*FIELDS, "role", "content", "type", "text", "format"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(json_values | st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_features_are_total(body: Any) -> None:
    features = RequestFeatures.of(body)
    assert isinstance(features.json_mode, bool)
    assert isinstance(features.tools, bool)
    assert isinstance(features.code, bool)
    assert features.prompt_chars >= 0
    assert features.script in SCRIPTS
    assert isinstance(features.text, str)


def test_a_body_that_cannot_be_decoded_has_no_features() -> None:
    def load() -> Any:
        raise ValueError("not JSON")

    features = RequestFeatures(load)
    assert (features.prompt_chars, features.text, features.tools) == (0, "", False)


def test_the_body_is_decoded_at_most_once() -> None:
    calls = []

    def load() -> Any:
        calls.append(1)
        return {"prompt": "hello"}

    features = RequestFeatures(load)
    assert features.text == features.text == "hello"
    assert features.prompt_chars == 5
    assert calls == [1]


SYSTEM = {"role": "system", "content": "ab"}
PARTS = {
    "role": "user",
    "content": [{"type": "text", "text": "ab"}, {"type": "image_url"}, {"text": "c"}],
}
TOOL_CALL = {"role": "assistant", "content": None, "tool_calls": []}


@pytest.mark.parametrize(
    ("body", "text", "chars"),
    [
        ({"messages": [SYSTEM, {"role": "user", "content": "cde"}]}, "cde", 5),
        ({"messages": [PARTS, TOOL_CALL, {"role": "tool", "content": "xyz"}]}, "ab\nc", 6),
        ({"messages": [{"role": "assistant", "content": "ab"}]}, "", 2),
        ({"prompt": "hello"}, "hello", 5),
        ({"prompt": ["one", "three"]}, "three", 8),
        ({"prompt": [1, 2, 3]}, "", 0),
        ({"prompt": [[1, 2], [3]]}, "", 0),
        ({"input": "hello", "instructions": "be"}, "hello", 7),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}, "hi", 2),
        ({"input": ["embed", "these"]}, "these", 10),
        ({}, "", 0),
    ],
)  # fmt: skip
def test_text_and_characters_of_every_kind_of_request(
    body: dict[str, Any], text: str, chars: int
) -> None:
    assert RequestFeatures.of(body).text == text
    assert RequestFeatures.of(body).prompt_chars == chars


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, True),
        ({"text": {"format": {"type": "json_schema"}}}, True),
        ({"text": {"format": {"type": "text"}}}, False),
        ({"guided_json": {"type": "object"}}, True),
        ({"structured_outputs": {"json": {}}}, True),
        ({"structured_outputs": None}, False),
    ],
)
def test_json_mode(fields: dict[str, Any], expected: bool) -> None:
    assert RequestFeatures.of(fields).json_mode is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello there", "latin"),
        ("Γειά σου κόσμε, hello", "greek"),
        ("Привет", "cyrillic"),
        ("你好世界", "han"),
        ("こんにちは世界", "kana"),
        ("안녕하세요", "hangul"),
        ("नमस्ते", "devanagari"),
        ("مرحبا", "arabic"),
        ("שלום", "hebrew"),
        ("สวัสดี", "thai"),
        ("naïve café", "latin"),
        ("12 + 30 = ?", "none"),
        ("…", "none"),
        ("", "none"),
        ("ᚠᚢᚦ", "other"),
        ("𠀀𠀁", "han"),
    ],
)
def test_dominant_script(text: str, expected: str) -> None:
    assert dominant_script(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What does this do?\n```python\nx = 1\n```", True),
        ("fix it: \ndef add(a, b):\n    return a + b", True),
        ("int x = 1;\nint y = 2;", True),
        ("#include <stdio.h>", True),
        ("const total = 4", True),
        ("SELECT name FROM users", True),
        ("import os.path", True),
        ("Please select the best one from this list.", False),
        ("Private companies are not listed.", False),
        ("Write a class: who is in it?", False),
        ('Extract JSON from: {\n  "name": "Ann",\n  "age": 3\n}', False),
        ("One; two; three.", False),
        ("", False),
    ],
)
def test_code(text: str, expected: bool) -> None:
    assert chat(text).code is expected


def test_only_the_beginning_of_a_huge_text_is_looked_at() -> None:
    features = chat("a" * SCRIPT_CHARS + "β" * 10 * SCRIPT_CHARS)
    assert features.script == "latin"
    assert features.prompt_chars == 11 * SCRIPT_CHARS
    assert not chat("word " * CODE_CHARS + "```").code
