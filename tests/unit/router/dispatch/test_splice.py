"""The second half of a stream becomes the rest of the first."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.dispatch.continuation import CannotContinueError, StopStrings
from penumbra.router.dispatch.continuation_request import Prefix
from penumbra.router.dispatch.sent_progress import read_progress
from penumbra.router.dispatch.splice import DivergedError, Splice, closing_events
from tests.support.stream_events import delta, stream, text

ROLE = delta(role="assistant", content="")
NO_STOPS = StopStrings()


def splice_after(
    *events: object, prefix: str = "", stops: StopStrings = NO_STOPS, kind: Any = "chat"
) -> Splice:
    """The splice after these events; without a prefix all of their text is gone on from."""
    progress = read_progress(kind, stream(*events))
    return Splice(kind, progress, Prefix(prefix or progress.text, 1), stops)


def rewrite(splice: Splice, event: dict[str, Any]) -> dict[str, Any] | None:
    rewritten = splice.rewrite(splice.read(json.dumps({**event, "id": "b"}).encode()))
    if rewritten is None:
        return None
    told: dict[str, Any] = json.loads(rewritten.removeprefix(b"data: "))
    assert told["id"] == "a"
    return told


def test_role_event_that_carries_text_loses_its_role() -> None:
    told = rewrite(splice_after(ROLE), delta(role="assistant", content="y"))
    assert told is not None
    assert told["choices"][0]["delta"] == {"content": "y"}


@pytest.mark.parametrize("empty", [{"content": ""}, {"content": None, "reasoning": None}, {}])
def test_role_is_not_said_twice(empty: dict[str, Any]) -> None:
    assert rewrite(splice_after(ROLE), delta(role="assistant", **empty)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0}]},
        {"function_call": {"name": "f"}},
        {"audio": {"id": "x"}},
        {"annotations": [{}]},
    ],
)
@pytest.mark.parametrize("role", [{}, {"role": "assistant"}])
def test_all_that_the_baseline_says_after_its_role_is_told(
    fields: dict[str, Any], role: dict[str, str]
) -> None:
    told = rewrite(splice_after(ROLE), delta(**role, **fields))
    assert told is not None
    assert told["choices"][0]["delta"] == fields


@pytest.mark.parametrize(
    "payload",
    [
        b"nonsense",
        b"[]",
        b'{"error": {"message": "x"}}',
        b'{"choices":"x"}',
        b'{"choices":{"a":1}}',
        b'{"choices":5}',
        b'{"choices":["x"]}',
        b'{"choices":[null]}',
        b'{"choices":[{"delta":"abc"}]}',
        b'{"choices":[{"delta":{"content":5}}]}',
        b'{"choices":[{"delta":{}},{"delta":{}}]}',
        b"[" * 5000,
    ],
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(CannotContinueError):
        splice_after(ROLE).read(payload)


@pytest.mark.parametrize("event", [{"choices": None}, {"choices": []}, {}, {"choices": [{}]}])
def test_events_without_text_do_no_harm(event: dict[str, Any]) -> None:
    splice = splice_after(ROLE)
    splice.rewrite(splice.read(json.dumps(event).encode()))


# Text that is made again


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=9), st.data())
def test_text_that_is_made_again_is_told_once(pieces: list[str], data: st.DataObject) -> None:
    whole = "".join(pieces)
    sent = data.draw(st.integers(1, len(whole)))
    begin = data.draw(st.integers(0, sent))
    splice = splice_after(
        text(whole[:sent]), prefix=whole[:begin] or "\0", stops=NO_STOPS, kind="completions"
    )
    splice._again = whole[begin:sent]
    rest, at = whole[begin:], 0
    told = ""
    for piece in pieces:
        event = rewrite(splice, text(rest[at : at + len(piece)]))
        at += len(piece)
        told += event["choices"][0]["text"] if event else ""
    assert whole[:sent] + told == whole


def test_other_text_in_its_place_is_a_divergence() -> None:
    splice = splice_after(ROLE, delta(content="a"), delta(content=" wo"), prefix="a")
    with pytest.raises(DivergedError):
        rewrite(splice, delta(content=" other"))


def test_other_white_space_in_its_place_is_none() -> None:
    splice = splice_after(ROLE, delta(content="a"), delta(content="\n\n"), prefix="a")
    told = rewrite(splice, delta(content="\n b"))
    assert told is not None
    assert told["choices"][0]["delta"]["content"] == " b"
    told = rewrite(splice, delta(content="\n\nc"))
    assert told is not None
    assert told["choices"][0]["delta"]["content"] == "\n\nc"


@pytest.mark.parametrize(("reason", "diverges"), [("stop", True), ("length", False)])
def test_an_end_before_all_is_made_again(reason: str, diverges: bool) -> None:
    splice = splice_after(ROLE, delta(content="a"), delta(content="bc"), prefix="a")
    event = delta(reason, content="b")
    if diverges:
        with pytest.raises(DivergedError):
            rewrite(splice, event)
        return
    told = rewrite(splice, event)
    assert told is not None
    assert told["choices"][0]["delta"]["content"] == ""


def test_an_end_by_a_stop_string_that_had_begun() -> None:
    splice = splice_after(
        ROLE, delta(content="a"), delta(content="EN"), prefix="a", stops=StopStrings(("END",))
    )
    told = rewrite(splice, delta("stop", content=""))
    assert told is not None
    assert told["choices"][0]["finish_reason"] == "stop"
    assert splice.is_finished


# Usage and the end


def test_usage_without_a_count_falls_back_to_events() -> None:
    splice = splice_after(delta(content="a"), delta(content="b"))
    splice.prefix_tokens = 2
    usage = splice.usage({"prompt_tokens": 12, "completion_tokens": 3, "x": 1})
    assert usage == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "x": 1}


@pytest.mark.parametrize("odd", [None, "x", [], True])
def test_odd_usage_counts_nothing(odd: object) -> None:
    splice = splice_after(delta(content="a"))
    splice.prompt_tokens = 7
    told = rewrite(
        splice, {"choices": [], "usage": {"prompt_tokens": odd, "completion_tokens": odd}}
    )
    assert told is not None
    assert told["usage"]["completion_tokens"] == 1


def test_closing_events_end_with_done() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    finish, counted, done = closing_events("chat", {"id": "a"}, "length", usage)
    assert b'"finish_reason":"length"' in finish
    assert b'"usage":{"prompt_tokens":1' in counted
    assert done == b"data: [DONE]\n\n"
    assert closing_events("completions", {}, None, None) == [b"data: [DONE]\n\n"]
