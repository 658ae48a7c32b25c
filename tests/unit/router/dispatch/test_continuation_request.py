"""The request for the rest of a broken stream."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.dispatch.continuation import CannotContinueError, read_fields
from penumbra.router.dispatch.continuation_request import Prefix, continuation_body, extended_prompt

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def rest_of(kind: Any, body: dict[str, Any], prefix: Prefix, tokens: int) -> dict[str, Any]:
    fields = read_fields(json.dumps(body).encode())
    rest: dict[str, Any] = json.loads(
        msgspec.json.encode(continuation_body(kind, fields, prefix, tokens))
    )
    return rest


def test_limits_shrink_by_what_was_sent() -> None:
    body = {**CHAT, "max_tokens": 5, "max_completion_tokens": 3, "min_tokens": 1, "x": [1]}
    rest = rest_of("chat", body, Prefix("ab"), 2)
    assert (rest["max_tokens"], rest["max_completion_tokens"], rest["min_tokens"]) == (3, 1, 0)
    assert rest["x"] == [1]


def test_limit_that_another_one_overrules_stays_one() -> None:
    body = {**CHAT, "max_tokens": 2, "max_completion_tokens": 30}
    rest = rest_of("chat", body, Prefix("ab"), 5)
    assert (rest["max_tokens"], rest["max_completion_tokens"]) == (1, 25)


@pytest.mark.parametrize("extra", [{}, {"max_tokens": None}])
def test_text_completion_without_a_limit_has_sixteen_tokens_in_all(extra: dict[str, Any]) -> None:
    assert rest_of("completions", {"prompt": "p", **extra}, Prefix("ab"), 10)["max_tokens"] == 6


def test_chat_without_a_limit_gets_none() -> None:
    rest = rest_of("chat", CHAT, Prefix("ab"), 10)
    assert "max_tokens" not in rest
    assert "max_completion_tokens" not in rest


def test_prompt_that_is_cut_keeps_its_length_beside_the_answer() -> None:
    assert rest_of("chat", {**CHAT, "truncate_prompt_tokens": 7}, Prefix("ab"), 2)[
        "truncate_prompt_tokens"
    ] == (9)


def test_message_that_was_already_continued_grows() -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "A ", "x": 1}]
    body = {
        "messages": messages,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    rest = rest_of("chat", body, Prefix("b"), 1)
    assert rest["messages"] == [messages[0], {"role": "assistant", "content": "A b", "x": 1}]


def test_message_in_parts_that_was_already_continued_cannot_grow() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "A"}]}]
    with pytest.raises(CannotContinueError):
        rest_of("chat", {"messages": parts, "continue_final_message": True}, Prefix("b"), 1)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("chat", {**CHAT, "max_tokens": 5, "min_tokens": 2}), ("completions", {"prompt": "p"})],
)
def test_nothing_to_go_on_from_asks_the_same_again(kind: Any, body: dict[str, Any]) -> None:
    assert rest_of(kind, body, Prefix(), 0) == body


@given(TEXTS, TEXTS)
def test_prompt_grows_by_the_text(prompt: str, text: str) -> None:
    for is_ascii in (True, False):
        fields = read_fields(json.dumps({"prompt": prompt}, ensure_ascii=is_ascii).encode())
        grown = msgspec.json.encode(extended_prompt("completions", fields, Prefix(text)))
        assert json.loads(grown) == {"prompt": prompt + text}


def test_other_fields_travel_as_they_were_written() -> None:
    odd = b'"seed":12345678901234567890123,"temperature":1e999,"x": [1 , {"\\u00e9":2.50}]'
    fields = read_fields(b'{"prompt":"p",%b,"max_tokens":9}' % odd)
    encoded = msgspec.json.encode(continuation_body("completions", fields, Prefix("ab"), 2))
    for part in (b'"seed":12345678901234567890123', b"1e999", b'[1 , {"\\u00e9":2.50}]'):
        assert part in encoded
    assert b'"max_tokens":7' in encoded
