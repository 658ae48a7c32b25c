"""Reads requests and answers of the Responses API (`/v1/responses`), for the harm checks. Pure.

A response is read as an answer of one choice: its messages are the text, its function calls the
tool calls. Of a stream the response in its last event tells everything.

vLLM (0.32) tells token ids in `input_messages` and `output_messages`, if it was asked for
`enable_response_messages`. Several of them are those of several turns of the engine with its own
tools, whose prompts are not one sequence: then there are no token ids.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from penumbra.monitoring.signals.answer import Answer, Choice, ToolCall
from penumbra.monitoring.signals.expectations import (
    Expectations,
    encoded_schema,
    last_user_text,
    limit_of,
    tools_of,
    wants_json_by,
)
from penumbra.monitoring.signals.writing import wanted_writing

RESPONSES_PATH = "/v1/responses"

_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed")
_RAW_TOKENS = "raw_message_tokens"
_CUT = "length"


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    content: list[_Part] | str | None = None
    summary: list[_Part] | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _Tokens(msgspec.Struct):
    type: str | None = None
    tokens: list[int] | None = None


class _Usage(msgspec.Struct):
    output_tokens: int | None = None


class _Response(msgspec.Struct):
    status: str | None = None
    output: list[_Item] | None = None
    usage: _Usage | None = None
    input_messages: list[_Tokens] | None = None
    output_messages: list[_Tokens] | None = None


class _Event(msgspec.Struct):
    type: str | None = None
    delta: Any = None
    response: msgspec.Raw = msgspec.Raw()


_read_response = msgspec.json.Decoder(_Response).decode
_read_event = msgspec.json.Decoder(_Event).decode


def read_whole(raw: bytes) -> Answer | None:
    """Read a whole response; None if it is none."""
    try:
        response = _read_response(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return None if response.output is None else _answer(response)


def read_stream(payloads: Iterable[bytes]) -> Answer | None:
    """Read the data of a stream's events; None if nothing was said in them.

    A stream that went wrong midway gives its text so far, not complete.
    """
    said: list[str] = []
    for payload in payloads:
        try:
            event = _read_event(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
        if event.type in _LAST_EVENTS:
            return read_whole(bytes(event.response))
        if event.type == "response.output_text.delta" and isinstance(event.delta, str):
            said.append(event.delta)
    return Answer((Choice(text="".join(said)),), has_error=True) if said else None


def _answer(response: _Response) -> Answer:
    items = response.output or []
    calls = tuple(call for call in map(_call, items) if call is not None)
    finish_reason = None
    if response.status == "completed":
        finish_reason = "tool_calls" if calls else "stop"
    elif response.status == "incomplete":
        finish_reason = _CUT
    count = response.usage.output_tokens if response.usage is not None else None
    prompt, said = _token_ids(response, count)
    choice = Choice(
        text="".join(_texts(items, "message", "output_text")),
        reasoning="".join(_texts(items, "reasoning", "reasoning_text", "summary_text")),
        refusal="".join(
            part.refusal or ""
            for item in items
            if isinstance(item.content, list)
            for part in item.content
        ),
        finish_reason=finish_reason,
        tool_calls=calls,
        prompt_token_ids=prompt,
        token_ids=said,
    )
    return Answer((choice,), count, has_error=finish_reason is None)


def _texts(items: Iterable[_Item], kind: str, *parts: str) -> Iterable[str]:
    for item in items:
        if item.type != kind:
            continue
        if isinstance(item.content, str):
            yield item.content
            continue
        for part in (*(item.content or ()), *(item.summary or ())):
            if part.type in parts and part.text:
                yield part.text


def _call(item: _Item) -> ToolCall | None:
    if item.type == "function_call":
        return ToolCall(item.name or "", item.arguments or "")
    if item.type == "custom_tool_call":  # its input is free text
        return ToolCall(item.name or "", msgspec.json.encode({"input": item.input}).decode())
    return None


def _token_ids(response: _Response, count: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The token ids of prompt and answer; empty unless they are those of one turn, and all."""
    asked, said = response.input_messages or [], response.output_messages or []
    if len(asked) != 1 or len(said) != 1:
        return (), ()
    if any(part.type != _RAW_TOKENS for part in (*asked, *said)):
        return (), ()
    prompt, answer = tuple(asked[0].tokens or ()), tuple(said[0].tokens or ())
    return (prompt, answer) if count is None or len(answer) == count else ((), ())


def response_expectations(wanted: Mapping[str, Any]) -> Expectations:
    """Read a request."""
    text = wanted.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    wants_json, schema = wants_json_by(wanted)
    if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
        wants_json, schema = True, encoded_schema(form.get("schema"))
    tools = tools_of(wanted.get("tools"), "parameters")
    choice, asked = wanted.get("tool_choice"), wanted.get("input")
    return Expectations(
        limit_tokens=limit_of(wanted, "max_output_tokens"),
        wants_json=wants_json,
        schema=schema,
        tools=tools,
        must_call=bool(tools) and (choice == "required" or isinstance(choice, dict)),
        writing=wanted_writing(asked if isinstance(asked, str) else last_user_text(asked)),
    )
