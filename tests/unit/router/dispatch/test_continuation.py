import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.dispatch.continuation import (
    CannotContinueError,
    Splice,
    check_continuable,
    continuation_body,
    extended_prompt,
    is_exhausted,
    read_progress,
)

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def stream(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "created": 1, "model": "m", "choices": [{"index": 0, "delta": fields}]}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=20))
def test_progress_is_the_text_that_was_sent(pieces: list[str]) -> None:
    progress = read_progress("chat", stream(*(delta(content=piece) for piece in pieces)))
    assert progress.text == "".join(pieces)
    assert progress.content_events + progress.silent_events == len(pieces)


def test_a_token_without_text_counts_once_text_follows() -> None:
    events = [delta(content=piece) for piece in ("", "\u03b1", "b", "", "")]
    progress = read_progress("chat", stream(*events))
    assert (progress.content_events, progress.silent_events) == (3, 2)


def test_progress_notes_role_finish_usage_and_done() -> None:
    events = (delta(role="assistant", content=""), {"choices": [], "usage": {"prompt_tokens": 1}})
    progress = read_progress("chat", stream(*events) + b"data: [DONE]\n\n")
    assert (progress.has_role, progress.has_usage, progress.is_done) == (True, True, True)
    assert progress.head == {"id": "a", "created": 1, "model": "m"}


@pytest.mark.parametrize("fields", [{"tool_calls": [{}]}, {"reasoning_content": "hm"}])
def test_tool_calls_and_reasoning_cannot_be_continued(fields: dict[str, Any]) -> None:
    with pytest.raises(CannotContinueError):
        read_progress("chat", stream(delta(**fields)))


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"n": 1},
        {"tools": []},
        {"logprobs": False},
        {"response_format": {"type": "text"}},
        {"logprobs": None},
    ],
)
def test_plain_requests_are_continuable(extra: dict[str, Any]) -> None:
    check_continuable("chat", {**CHAT, **extra})


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", {**CHAT, "n": 2}),
        ("chat", {**CHAT, "tools": [{}]}),
        ("chat", {**CHAT, "logprobs": True}),
        ("chat", {**CHAT, "response_format": {"type": "json_schema"}}),
        ("chat", {"messages": "no list"}),
        ("completions", {"prompt": ["a", "b"]}),
        ("completions", {"prompt": [1, 2]}),
        ("completions", {"prompt": "a", "logprobs": 0}),
        ("completions", {"prompt": "a", "echo": True}),
    ],
)
def test_what_text_cannot_restore_is_refused(kind: Any, body: dict[str, Any]) -> None:
    with pytest.raises(CannotContinueError):
        check_continuable(kind, body)


def test_limits_shrink_by_what_was_sent() -> None:
    progress = read_progress("chat", stream(delta(content="a"), delta(content="b")))
    body = {**CHAT, "max_tokens": 5, "max_completion_tokens": 2, "min_tokens": 1, "x": [1]}
    rest = continuation_body("chat", body, progress)
    assert (rest["max_tokens"], rest["max_completion_tokens"], rest["min_tokens"]) == (3, 0, 0)
    assert rest["x"] == [1]
    assert is_exhausted(rest)
    assert body["max_tokens"] == 5


def test_a_message_that_was_already_continued_grows() -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "A "}]
    body = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    grown = extended_prompt("chat", body, "b")
    assert grown["messages"] == [messages[0], {"role": "assistant", "content": "A b"}]
    assert messages[1]["content"] == "A "


def test_nothing_sent_asks_the_same_again() -> None:
    assert extended_prompt("chat", CHAT, "") == CHAT


def test_splice_keeps_a_role_event_that_carries_text() -> None:
    progress = read_progress("chat", stream(delta(role="assistant", content="x")))
    rewritten = Splice("chat", progress, None).rewrite(
        json.dumps({**delta(role="assistant", content="y"), "id": "b"}).encode()
    )
    assert rewritten is not None
    event = json.loads(rewritten.removeprefix(b"data: "))
    assert event["id"] == "a"
    assert event["choices"][0]["delta"] == {"content": "y"}


@pytest.mark.parametrize("payload", [b"nonsense", b"[]", b'{"error": {"message": "x"}}'])
def test_splice_refuses_what_is_no_event(payload: bytes) -> None:
    with pytest.raises(CannotContinueError):
        Splice("chat", read_progress("chat", b""), None).rewrite(payload)


def test_usage_without_a_count_falls_back_to_events() -> None:
    progress = read_progress("chat", stream(delta(content="a"), delta(content="b")))
    usage = Splice("chat", progress, None).usage({"prompt_tokens": 12, "completion_tokens": 3})
    assert usage == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
