"""Requests that can be continued, and the fields that decide where the second half begins."""

import json
from typing import Any

import pytest

from penumbra.router.dispatch.continuation import (
    CannotContinueError,
    StopStrings,
    check_continuable,
    depends_on_count,
    read_fields,
    token_limit,
    value_of,
    wants_usage,
)

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
TEXT: dict[str, Any] = {"prompt": "hi"}


def fields(body: dict[str, Any]) -> Any:
    return read_fields(json.dumps(body).encode())


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"n": 1},
        {"tools": []},
        {"logprobs": False},
        {"response_format": {"type": "text"}},
        {"logprobs": None},
        {"include_reasoning": True},
        {"include_reasoning": None},
        {"truncate_prompt_tokens": 5},
        {"truncate_prompt_tokens": -1, "truncation_side": "right"},
    ],
)
def test_plain_requests_are_continuable(extra: dict[str, Any]) -> None:
    check_continuable("chat", fields({**CHAT, **extra}))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", {**CHAT, "n": 2}),
        ("chat", {**CHAT, "tools": [{}]}),
        ("chat", {**CHAT, "tools": [{"function": {"name": "f" * 1000}}]}),
        ("chat", {**CHAT, "logprobs": True}),
        ("chat", {**CHAT, "response_format": {"type": "json_schema"}}),
        ("chat", {**CHAT, "include_reasoning": False}),
        ("chat", {**CHAT, "include_reasoning": "false"}),
        ("chat", {**CHAT, "include_reasoning": 0}),
        ("chat", {**CHAT, "truncate_prompt_tokens": 5, "truncation_side": "right"}),
        ("chat", {"messages": "no list"}),
        ("chat", {}),
        ("completions", {"prompt": ["a", "b"]}),
        ("completions", {"prompt": [1, 2]}),
        ("completions", {"prompt": None}),
        ("completions", {**TEXT, "logprobs": 0}),
        ("completions", {**TEXT, "echo": True}),
    ],
)
def test_what_text_cannot_restore_is_refused(kind: Any, body: dict[str, Any]) -> None:
    with pytest.raises(CannotContinueError):
        check_continuable(kind, fields(body))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b'{"a":"\xff"', b'{"a":' + b"[" * 2000])
def test_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(CannotContinueError):
        read_fields(body)


def test_body_of_too_many_values_is_refused_unread() -> None:
    with pytest.raises(CannotContinueError, match="too many"):
        read_fields(b'{"a":[' + b"{}," * 500_000 + b"{}]}")
    with pytest.raises(CannotContinueError, match="too many"):
        read_fields(b'{"a":' + b"[" * 300_000 + b"]" * 300_000 + b"}")


@pytest.mark.parametrize("raw", [b"1e999", b"1" * 5000, b'"\\ud83c"'])
def test_value_that_cannot_be_held_matters_only_where_it_is_read(raw: bytes) -> None:
    read = read_fields(
        b'{"messages":[],"x":1,"y":%b}' % raw if raw[0] != 34 else b'{"y":"\\u00e9"}'
    )
    assert value_of(read, "x") in (1, None)
    if raw[0] != 34:
        with pytest.raises(CannotContinueError):
            value_of(read, "y")


@pytest.mark.parametrize(
    ("kind", "extra", "limit"),
    [
        ("completions", {}, 16),
        ("completions", {"max_tokens": None}, 16),
        ("completions", {"max_tokens": 7}, 7),
        ("completions", {"max_tokens": "7"}, 7),
        ("completions", {"max_tokens": 7.0}, 7),
        ("completions", {"max_completion_tokens": 7}, 16),
        ("chat", {}, None),
        ("chat", {"max_tokens": None}, None),
        ("chat", {"max_tokens": 9}, 9),
        ("chat", {"max_tokens": 9, "max_completion_tokens": 40}, 40),
        ("chat", {"max_tokens": 9, "max_completion_tokens": None}, 9),
    ],
)
def test_token_limit_is_the_one_that_the_engine_takes(
    kind: Any, extra: dict[str, Any], limit: int | None
) -> None:
    assert token_limit(kind, fields({**CHAT, **TEXT, **extra})) == limit


@pytest.mark.parametrize("value", ["many", [1], {}, 7.5])
def test_limit_that_is_no_number_cannot_be_continued(value: object) -> None:
    with pytest.raises(CannotContinueError):
        token_limit("chat", fields({**CHAT, "max_tokens": value}))


@pytest.mark.parametrize(
    ("kind", "extra", "depends"),
    [
        ("chat", {}, False),
        ("chat", {"max_tokens": 5}, True),
        ("chat", {"min_tokens": 5}, True),
        ("chat", {"min_tokens": 0}, False),
        ("chat", {"truncate_prompt_tokens": 5}, True),
        ("chat", {"truncate_prompt_tokens": -1}, False),
        ("completions", {}, True),
    ],
)
def test_tokens_are_counted_where_the_rest_depends_on_them(
    kind: Any, extra: dict[str, Any], depends: bool
) -> None:
    assert depends_on_count(kind, fields({**CHAT, **TEXT, **extra})) is depends


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), (None, False), (5, False)],
)
def test_usage_is_wanted_if_asked_for(options: object, wanted: bool) -> None:
    assert wants_usage(fields({**CHAT, "stream_options": options})) is wanted


@pytest.mark.parametrize(
    ("extra", "held_back"),
    [
        ({}, 0),
        ({"stop": None}, 0),
        ({"stop": []}, 0),
        ({"stop": "x"}, 0),
        ({"stop": "END"}, 2),
        ({"stop": ["END", "\n\n\n\n", "x"]}, 3),
        ({"stop": "Ω≈ç√"}, 3),
        ({"stop": "END", "include_stop_str_in_output": True}, 0),
        ({"stop": "END", "include_stop_str_in_output": "true"}, 0),
        ({"stop": "END", "include_stop_str_in_output": False}, 2),
    ],
)
def test_engine_holds_back_all_but_one_character_of_the_longest_stop_string(
    extra: dict[str, Any], held_back: int
) -> None:
    assert StopStrings.of(fields({**CHAT, **extra})).held_back == held_back


@pytest.mark.parametrize("stop", [5, {"a": 1}, [5], ["x"] * 2000])
def test_odd_stop_strings_cannot_be_continued(stop: object) -> None:
    with pytest.raises(CannotContinueError):
        StopStrings.of(fields({**CHAT, "stop": stop}))


@pytest.mark.parametrize(
    ("text", "begun_at"),
    [("", 0), ("abc", 3), ("abcE", 3), ("abcEN", 3), ("abcENDE", 6), ("E END", 5), ("EE", 1)],
)
def test_a_stop_string_may_have_begun_at_the_end_of_the_text(text: str, begun_at: int) -> None:
    assert StopStrings(("END", "zzz")).begun_at(text) == begun_at
