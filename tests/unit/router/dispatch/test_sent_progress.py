"""The part of a stream that the client has, and the text from which another build goes on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.dispatch.continuation import CannotContinueError, StopStrings
from penumbra.router.dispatch.continuation_request import Prefix
from penumbra.router.dispatch.sent_progress import choose_prefix, read_progress, whole_prefix
from tests.support.stream_events import delta, stream, text

NO_STOPS = StopStrings()
WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=20)


@given(WORDS)
def test_progress_is_the_text_that_was_sent(pieces: list[str]) -> None:
    progress = read_progress("chat", stream(*(delta(content=piece) for piece in pieces)))
    assert progress.text == "".join(pieces)
    assert progress.tokens == len(pieces)


def test_progress_notes_role_finish_usage_and_done() -> None:
    events = (delta(role="assistant", content=""), {"choices": [], "usage": {"prompt_tokens": 1}})
    progress = read_progress("chat", stream(*events) + b"data: [DONE]\n\n")
    assert (progress.has_role, progress.has_usage, progress.is_done) == (True, True, True)
    assert progress.head == {"id": "a", "created": 1, "model": "m"}
    assert progress.tokens == 0


def test_the_event_of_the_finish_reason_is_a_token() -> None:
    progress = read_progress("chat", stream(delta(content="a"), delta("stop")))
    assert (progress.tokens, progress.finish_reason) == (2, "stop")


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_calls": [{}]},
        {"function_call": {"name": "f"}},
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"refusal": "no"},
        {"audio": {"id": "x"}},
        {"content": 5},
        {"content": ["a"]},
    ],
)
def test_more_than_text_cannot_be_continued(fields: dict[str, Any]) -> None:
    with pytest.raises(CannotContinueError):
        read_progress("chat", stream(delta(content="a"), delta(**fields)))


@pytest.mark.parametrize("kind", ["chat", "completions"])
@pytest.mark.parametrize(
    "event",
    [
        {"choices": ["x"]},
        {"choices": {"a": 1}},
        {"choices": 5},
        {"choices": "x"},
        {"choices": [5]},
        {"choices": [None]},
        {"choices": [{"delta": "abc", "text": 7}]},
        {"choices": [{"delta": 5, "text": {}}]},
        {"choices": [{"delta": {"content": {}}, "text": []}]},
        {"choices": [{"delta": {}, "text": "", "finish_reason": 1}]},
        {"choices": [{"index": 1, "delta": {}, "text": ""}]},
        {"choices": [{"delta": {}}, {"delta": {}}]},
        {"error": {"message": "x"}},
        [],
        "x",
        7,
    ],
)
def test_odd_event_cannot_be_continued(kind: Any, event: object) -> None:
    with pytest.raises(CannotContinueError):
        read_progress(kind, stream(event))


@pytest.mark.parametrize("payload", [b"oops", b"{", b'{"choices":', b"\xff", b"[" * 5000])
def test_event_that_is_not_json_cannot_be_continued(payload: bytes) -> None:
    with pytest.raises(CannotContinueError):
        read_progress("chat", b"data: " + payload + b"\n\n")


@pytest.mark.parametrize("event", [{"choices": None}, {"choices": []}, {}, {"choices": [{}]}])
def test_event_without_news_is_passed_over(event: object) -> None:
    progress = read_progress("chat", stream(event, delta(content="a")))
    assert (progress.text, progress.tokens) == ("a", 1)


# Where another build goes on


def test_without_stop_strings_all_text_is_gone_on_from() -> None:
    progress = read_progress("completions", stream(text("ab"), text("cd ")))
    assert choose_prefix("completions", progress, NO_STOPS) == Prefix("abcd ", 2)


def test_a_token_without_text_counts_once_text_follows() -> None:
    events = [delta(content=piece) for piece in ("", "\u03b1", "b", "", "")]
    progress = read_progress("chat", stream(*events))
    assert choose_prefix("chat", progress, NO_STOPS) == Prefix("\u03b1b", 3)
    assert progress.tokens == 5


def held_back(tokens: list[str], characters: int, at_once: int = 1) -> bytes:
    """The events of an engine that holds back characters at the end of unfinished text."""
    events, sent, made = [], 0, ""
    for number, token in enumerate(tokens, 1):
        made += token
        if number % at_once == 0:
            length = max(sent, len(made) - characters)
            events.append(text(made[sent:length]))
            sent = length
    return stream(*events)


@given(
    st.lists(st.text("ab ", min_size=1, max_size=6), max_size=30),
    st.integers(0, 9),
    st.integers(1, 8),
)
def test_the_prefix_ends_where_a_token_ended(
    tokens: list[str], characters: int, at_once: int
) -> None:
    stops = StopStrings(("z" * (characters + 1),))
    progress = read_progress("completions", held_back(tokens, characters, at_once))
    prefix = choose_prefix("completions", progress, stops)
    ends = ["".join(tokens[:count]) for count in range(len(tokens) + 1)]
    assert prefix.text in ends
    assert progress.text.startswith(prefix.text)
    assert len(progress.text) - len(prefix.text) <= characters + 6 * at_once
    if at_once == 1 and prefix.text:
        assert prefix.tokens == ends.index(prefix.text)


def test_text_that_was_held_back_is_no_part_of_the_prefix() -> None:
    progress = read_progress("completions", held_back(["abc", "de", "f", "gh"], 2))
    assert progress.text == "abcdef"
    assert choose_prefix("completions", progress, StopStrings(("xyz",))) == Prefix("abcdef", 3)
    progress = read_progress("completions", held_back(["abcd", "ef", "gh"], 3))
    assert progress.text == "abcde"
    assert choose_prefix("completions", progress, StopStrings(("wxyz",))) == Prefix("abcd", 1)


def test_the_prefix_does_not_end_within_what_may_be_a_stop_string() -> None:
    progress = read_progress("completions", stream(text("ab"), text(" E"), text("N")))
    stops = StopStrings(("END",), is_included=True)
    assert choose_prefix("completions", progress, stops) == Prefix("ab", 1)


def test_the_prefix_of_a_chat_does_not_end_in_white_space() -> None:
    progress = read_progress("chat", stream(*(delta(content=c) for c in ("a", "b\n", "\n "))))
    assert choose_prefix("chat", progress, NO_STOPS) == Prefix("a", 1)
    blank = read_progress("chat", stream(delta(content="\n\n")))
    assert choose_prefix("chat", blank, NO_STOPS) == Prefix(is_exact=True)


def test_all_text_can_be_gone_on_from_as_well() -> None:
    progress = read_progress("completions", held_back(["abcd", "ef", "gh"], 3))
    assert whole_prefix(progress, StopStrings(("wxyz",))) == Prefix("abcde", 3)
    plain = read_progress("chat", stream(delta(content="a"), delta(content=""), delta(content="b")))
    assert whole_prefix(plain, NO_STOPS) == Prefix("ab", 3)


# Tokens that the stream names


def test_token_ids_count_the_tokens_of_an_event() -> None:
    events = (
        text("ab", token_ids=[1, 2], prompt_token_ids=[7, 8, 9]),
        text("cdef", token_ids=[3, 4, 5]),
        text("", token_ids=[6]),
    )
    progress = read_progress("completions", stream(*events))
    prefix = choose_prefix("completions", progress, NO_STOPS)
    assert prefix == Prefix("abcdef", 5, is_exact=True)
    assert (progress.tokens, progress.prompt_tokens) == (6, 3)


def test_usage_within_the_stream_counts_the_tokens_of_an_event() -> None:
    def usage(tokens: int) -> dict[str, Any]:
        return {"usage": {"prompt_tokens": 11, "completion_tokens": tokens}}

    events = (delta(role="assistant") | usage(0), delta(content="ab") | usage(4))
    progress = read_progress("chat", stream(*events))
    assert choose_prefix("chat", progress, NO_STOPS) == Prefix("ab", 4, is_exact=True)
    assert (progress.prompt_tokens, progress.has_usage) == (11, False)


@pytest.mark.parametrize("ids", [None, "x", 5, {}])
def test_odd_token_ids_name_no_tokens(ids: object) -> None:
    progress = read_progress("completions", stream(text("ab", token_ids=ids)))
    assert choose_prefix("completions", progress, NO_STOPS) == Prefix("ab", 1)
