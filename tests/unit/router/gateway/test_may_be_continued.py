"""A stream is kept for its continuation unless the request rules one out for sure."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.dispatch.continuation import (
    CannotContinueError,
    check_continuable,
    read_fields,
)
from penumbra.router.gateway.body_peek import decode
from penumbra.router.gateway.large_body import LargeBody

FIELDS = (
    "n", "tools", "functions", "response_format", "structured_outputs", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "logprobs", "top_logprobs",
    "prompt_logprobs", "echo", "return_token_ids", "use_beam_search", "prompt_embeds", "suffix",
    "include_reasoning",
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, False, 0, 1, 2, 1.0, 0.0, "", "x", "text", [], {}, [[]], [{}], {"a": []},
        {"type": "text"}, {"type": "json_object"}, {"type": "text", "x": "y" * 5000},
    ]
)  # fmt: skip
CHAT: dict[str, Any] = {"model": "m", "messages": [], "stream": True}


def written(fields: dict[str, Any], blanks: str) -> bytes:
    """The body, with blanks inside its empty lists and objects."""
    body = json.dumps({**CHAT, **fields})
    return body.replace("[]", f"[{blanks}]").replace("{}", f"{{{blanks}}}").encode()


@given(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
    st.sampled_from(["", " ", "\n\t" * 100]),
)
def test_what_can_be_continued_is_kept(fields: dict[str, Any], blanks: str) -> None:
    body = written(fields, blanks)
    peeks = [decode(body)]
    large = LargeBody(body)
    while (peek := large.step()) is None:
        pass
    peeks.append(peek)
    try:
        check_continuable("chat", read_fields(body))
    except CannotContinueError:
        return
    assert [peek.may_be_continued for peek in peeks] == [True, True]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"n": 0},
        {"n": "1"},
        {"tools": [{"type": "function"}]},
        {"functions": [1]},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"x": "y" * 10_000}}},
        {"structured_outputs": {"regex": "a"}},
        {"guided_json": {"type": "object"}},
        {"guided_regex": "a"},
        {"guided_choice": ["a"]},
        {"guided_grammar": "a"},
        {"logprobs": True},
        {"logprobs": 0},
        {"top_logprobs": 5},
        {"prompt_logprobs": 0},
        {"echo": True},
        {"return_token_ids": True},
        {"use_beam_search": True},
        {"prompt_embeds": "x"},
        {"suffix": ""},
        {"include_reasoning": False},
    ],
    ids=json.dumps,
)
def test_what_cannot_be_continued_is_not_kept(fields: dict[str, Any]) -> None:
    assert decode(written(fields, "")).may_be_continued is False
    with pytest.raises(CannotContinueError):
        check_continuable("chat", read_fields(written(fields, "")))


@pytest.mark.parametrize(
    "fields", [{}, {"n": 1}, {"tools": []}, {"logprobs": None}, {"include_reasoning": True}]
)
def test_an_ordinary_stream_is_kept(fields: dict[str, Any]) -> None:
    assert decode(written(fields, "")).may_be_continued is True
