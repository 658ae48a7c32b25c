"""A stream's answer is complete or not, by its last events."""

import json
from typing import Any

import pytest

from penumbra.router.dispatch.stream_end import StreamEnd, end_of

CHAT, RESPONSES, MESSAGES = b"/v1/chat/completions", b"/v1/responses", b"/v1/messages"
TEXT = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
TOOL = {"choices": [{"index": 0, "delta": {"tool_calls": [{}]}, "finish_reason": None}]}
USAGE = {"choices": [], "usage": {"completion_tokens": 3}}


def finish(reason: str = "stop", index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}


def events(*values: object) -> bytes:
    return b"".join(
        b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"
        for value in values
    )


@pytest.mark.parametrize(
    ("path", "tail", "end"),
    [
        (CHAT, events(TEXT), StreamEnd.OPEN),
        (CHAT, events(TEXT, finish()), StreamEnd.FINISHED),
        (CHAT, events(TOOL, finish("tool_calls")), StreamEnd.FINISHED),
        (CHAT, events(finish("function_call")), StreamEnd.FINISHED),
        (CHAT, events(finish("content_filter")), StreamEnd.FINISHED),
        (CHAT, events(finish("length"), USAGE), StreamEnd.FINISHED),
        (CHAT, events(USAGE), StreamEnd.FINISHED),
        (CHAT, events(finish(), b"[DONE]"), StreamEnd.MARKED),
        (CHAT, events(b"[DONE]") + b": ping\n\n" * 9, StreamEnd.MARKED),
        (CHAT, b": ping\n\n", StreamEnd.OPEN),
        (CHAT, b"", StreamEnd.OPEN),
        (CHAT, b'0, "finish_reason": "stop"}]}\n\n' + events(TEXT), StreamEnd.OPEN),
        (CHAT, b"cut}\n\n" + events(finish()), StreamEnd.FINISHED),
        (CHAT, events(finish()).replace(b"\n", b"\r\n"), StreamEnd.FINISHED),
        (CHAT, events(finish(), {"error": {"message": "x"}}), StreamEnd.FAILED),
        (b"/v1/completions?x=1", events({"choices": [{"text": "a"}]}), StreamEnd.OPEN),
        (b"/v1/completions", events({"choices": [{"finish_reason": "stop"}]}), StreamEnd.FINISHED),
        (RESPONSES, events({"type": "response.output_text.delta"}), StreamEnd.OPEN),
        (RESPONSES, events({"type": "response.completed"}), StreamEnd.MARKED),
        (RESPONSES, events({"type": "response.incomplete"}), StreamEnd.MARKED),
        (RESPONSES, events({"type": "response.failed"}), StreamEnd.FAILED),
        (MESSAGES, events({"type": "message_delta"}), StreamEnd.OPEN),
        (MESSAGES, events({"type": "message_stop"}), StreamEnd.MARKED),
        (b"/v1/other", events({"piece": 1}), StreamEnd.MARKED),
    ],
)
def test_end_of_a_stream(path: bytes, tail: bytes, end: StreamEnd) -> None:
    assert end_of(path, tail) is end


def test_every_choice_must_have_its_finish_reason() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": None}]}
    assert end_of(CHAT, events(finish(), other)) is StreamEnd.OPEN
    assert end_of(CHAT, events(finish(), other, finish(index=1))) is StreamEnd.FINISHED


def test_text_after_the_finish_reason_changes_nothing() -> None:
    assert end_of(CHAT, events(finish(), TEXT)) is StreamEnd.FINISHED


@pytest.mark.parametrize("choices", ["x", 5, {"a": 1}, ["x"], [None], [{"index": [], "delta": 5}]])
def test_odd_choices_are_no_end(choices: object) -> None:
    assert end_of(CHAT, events({"choices": choices})) is StreamEnd.OPEN
    assert end_of(CHAT, events({"type": choices, "choices": choices})) is StreamEnd.OPEN
