import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.answer import Answer, ToolCall
from penumbra.monitoring.signals.by_route import expectations, read_answer
from penumbra.monitoring.signals.expectations import Expectations
from penumbra.monitoring.signals.harm import checks
from tests.support.engine_wire import Engine

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
ASKED = {"model": "demo", "input": "hello", "enable_response_messages": True}
TEXT = "".join(Engine("full").tokens)


def response(**fields: Any) -> bytes:
    told = {"status": "completed", "output": [], "usage": {"output_tokens": 2}}
    return json.dumps(told | fields).encode()


def raw(*tokens: int) -> dict[str, Any]:
    return {"message": "", "tokens": list(tokens), "type": "raw_message_tokens"}


def said(answer: Answer | None) -> Answer:
    assert answer is not None
    return answer


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_response_is_read_with_its_token_ids(is_stream: bool) -> None:
    engine = Engine("full")
    told = engine.answer(RESPONSES, ASKED)
    if is_stream:
        told = b"".join(engine.events(RESPONSES, ASKED))
    answer = said(read_answer(RESPONSES, is_stream, told))
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, answer.is_complete) == (TEXT, "stop", True)
    assert len(choice.token_ids) == answer.completion_tokens == len(engine.tokens) + 1
    assert choice.prompt_token_ids == (0, 1)


def test_items_of_a_response_are_text_reasoning_and_calls() -> None:
    output = [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Look:"}]},
        {"type": "function_call", "name": "weather", "arguments": '{"city":"Bern"}'},
        {"type": "custom_tool_call", "name": "shell", "input": "ls"},
    ]
    (choice,) = said(read_answer(RESPONSES, False, response(output=output))).choices
    assert (choice.text, choice.reasoning, choice.finish_reason) == ("Look:", "Hm.", "tool_calls")
    assert choice.tool_calls == (
        ToolCall("weather", '{"city":"Bern"}'),
        ToolCall("shell", '{"input":"ls"}'),
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input_messages": [raw(1)], "output_messages": [raw(2, 3)]}, ((1,), (2, 3))),
        ({"input_messages": [raw(1)], "output_messages": [raw(2), raw(3)]}, ((), ())),
        ({"input_messages": [raw(1)], "output_messages": [raw(2, 3, 4)]}, ((), ())),
        ({"input_messages": [{"role": "user"}], "output_messages": [{"role": "x"}]}, ((), ())),
        ({"input_messages": None, "output_messages": None}, ((), ())),
    ],
    ids=["one turn", "two turns", "not all", "of another kind", "none"],
)
def test_token_ids_of_a_response_are_those_of_one_turn_or_none(
    fields: dict[str, Any], expected: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    (choice,) = said(read_answer(RESPONSES, False, response(**fields))).choices
    assert (choice.prompt_token_ids, choice.token_ids) == expected


@pytest.mark.parametrize(
    ("status", "finish_reason", "is_complete"),
    [("completed", "stop", True), ("incomplete", "length", True), ("failed", None, False)],
)
def test_the_end_of_a_response(status: str, finish_reason: str | None, is_complete: bool) -> None:
    answer = said(read_answer(RESPONSES, False, response(status=status)))
    assert answer.choices[0].finish_reason == finish_reason
    assert answer.is_complete is is_complete


def test_a_stream_of_a_response_that_breaks_off_gives_its_text_so_far() -> None:
    told = b"".join(Engine("full").events(RESPONSES, ASKED)[:-2])
    answer = said(read_answer(RESPONSES, True, told))
    assert (answer.choices[0].text, answer.is_complete) == (TEXT, False)


MESSAGE = {
    "type": "message",
    "content": [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "Look:"},
        {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Bern"}},
    ],
    "stop_reason": "tool_use",
    "usage": {"output_tokens": 9},
}


def events(*payloads: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n".encode()
        for payload in payloads
    )


STREAM = (
    {"type": "message_start", "message": {}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
    {"type": "content_block_delta", "index": 0, "delta": {"thinking": "Hm."}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"text": "Look"}},
    {"type": "content_block_delta", "index": 1, "delta": {"text": ":"}},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "name": "weather", "input": {}},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"partial_json": '{"city":'}},
    {"type": "content_block_delta", "index": 2, "delta": {"partial_json": '"Bern"}'}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use"},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_message_is_text_reasoning_and_calls(is_stream: bool) -> None:
    told = events(*STREAM) if is_stream else json.dumps(MESSAGE).encode()
    answer = said(read_answer(MESSAGES, is_stream, told))
    (choice,) = answer.choices
    assert (choice.text, choice.reasoning, choice.finish_reason) == ("Look:", "Hm.", "tool_calls")
    assert choice.tool_calls == (ToolCall("weather", '{"city":"Bern"}'),)
    assert (answer.completion_tokens, answer.is_complete) == (9, True)


@pytest.mark.parametrize("last", [STREAM[:-1], (*STREAM[:4], {"type": "error"})])
def test_a_stream_of_a_message_that_breaks_off_is_not_complete(last: Any) -> None:
    assert not said(read_answer(MESSAGES, True, events(*last))).is_complete


@given(st.binary(max_size=50), st.sampled_from([RESPONSES, MESSAGES]), st.booleans())
def test_reading_never_raises(data: bytes, path: str, is_stream: bool) -> None:
    read_answer(path, is_stream, data)
    read_answer(path, is_stream, b"data: " + data + b"\n\n")
    expectations(path, data)


GREEK = "Γειά σου, τι καιρό κάνει σήμερα στην Αθήνα;"
SCHEMA = {"type": "object", "required": ["a"]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            RESPONSES,
            {
                "input": [{"role": "user", "content": [{"type": "input_text", "text": GREEK}]}],
                "max_output_tokens": 7,
                "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
                "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
                "tool_choice": "required",
            },
        ),
        (
            MESSAGES,
            {
                "messages": [{"role": "user", "content": [{"type": "text", "text": GREEK}]}],
                "max_tokens": 7,
                "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
                "tools": [{"name": "weather", "input_schema": SCHEMA}],
                "tool_choice": {"type": "any"},
            },
        ),
    ],
)
def test_expectations_of_the_other_routes(path: str, body: dict[str, Any]) -> None:
    schema = json.dumps(SCHEMA, separators=(",", ":")).encode()
    assert expectations(path, json.dumps(body).encode()) == Expectations(
        limit_tokens=7,
        wants_json=True,
        schema=schema,
        tools={"weather": schema},
        must_call=True,
        writing="greek",
    )
    assert expectations(path, b"{}") == Expectations()


def test_harm_checks_read_a_response() -> None:
    wanted = expectations(RESPONSES, b'{"input":"x","text":{"format":{"type":"json_object"}}}')
    broken = [{"type": "message", "content": [{"type": "output_text", "text": "{not json"}]}]
    assert checks(wanted, read_answer(RESPONSES, False, response(output=broken))) == {"json"}
