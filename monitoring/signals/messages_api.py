"""Reads requests and answers of Anthropic's API (`/v1/messages`), for the harm checks. Pure.

An answer is one choice: its text blocks are the text, its `tool_use` blocks the tool calls. No
engine tells token ids there.
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
)
from penumbra.monitoring.signals.writing import wanted_writing

MESSAGES_PATH = "/v1/messages"

_FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "refusal": "stop",
}


class _Block(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: Any = None


class _Usage(msgspec.Struct):
    output_tokens: int | None = None


class _Message(msgspec.Struct):
    type: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Delta(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    type: str | None = None
    index: int | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_read_message = msgspec.json.Decoder(_Message).decode
_read_event = msgspec.json.Decoder(_Event).decode


class _Draft:
    """One content block of a stream while its parts are put together."""

    __slots__ = ("block", "texts")

    def __init__(self, block: _Block) -> None:
        self.block = block
        self.texts: list[str] = []

    def add(self, delta: _Delta) -> None:
        self.texts.append(delta.text or delta.thinking or delta.partial_json or "")

    def finish(self) -> _Block:
        block, text = self.block, "".join(self.texts)
        if block.type == "tool_use":
            block.input = text or block.input
        elif block.type == "thinking":
            block.thinking = (block.thinking or "") + text
        else:
            block.text = (block.text or "") + text
        return block


def read_whole(raw: bytes) -> Answer | None:
    """Read a whole message; None if it is none."""
    try:
        message = _read_message(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if message.type != "message" or message.content is None:
        return None
    count = message.usage.output_tokens if message.usage is not None else None
    return _answer(message.content, message.stop_reason, count, has_error=False)


def read_stream(payloads: Iterable[bytes]) -> Answer | None:
    """Read the data of a stream's events; None if no message began in them."""
    drafts: dict[int, _Draft] = {}
    stop_reason, count = None, None
    is_begun = is_over = has_error = False
    for payload in payloads:
        try:
            event = _read_event(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            has_error = True
            continue
        index = event.index or 0
        if event.type == "message_start":
            is_begun = True
        elif event.type == "content_block_start" and event.content_block is not None:
            drafts[index] = _Draft(event.content_block)
        elif event.type == "content_block_delta" and event.delta is not None:
            drafts.setdefault(index, _Draft(_Block("text"))).add(event.delta)
        elif event.type == "message_delta":
            stop_reason = event.delta.stop_reason if event.delta is not None else None
            count = event.usage.output_tokens if event.usage is not None else None
        is_over = is_over or event.type == "message_stop"
        has_error = has_error or event.type == "error"
    if not is_begun:
        return None
    blocks = [drafts[index].finish() for index in sorted(drafts)]
    return _answer(blocks, stop_reason if is_over else None, count, has_error=has_error)


def _answer(
    blocks: Iterable[_Block], stop_reason: str | None, count: int | None, *, has_error: bool
) -> Answer:
    blocks = list(blocks)
    choice = Choice(
        text="".join(block.text or "" for block in blocks if block.type == "text"),
        reasoning="".join(block.thinking or "" for block in blocks if block.type == "thinking"),
        finish_reason=None if stop_reason is None else _FINISHED.get(stop_reason, stop_reason),
        tool_calls=tuple(_call(block) for block in blocks if block.type == "tool_use"),
    )
    return Answer((choice,), count, has_error=has_error)


def _call(block: _Block) -> ToolCall:
    given = block.input
    # In a stream it comes as a text of JSON, in pieces.
    arguments = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    return ToolCall(block.name or "", arguments)


def message_expectations(wanted: Mapping[str, Any]) -> Expectations:
    """Read a request."""
    config = wanted.get("output_config")
    form = config.get("format") if isinstance(config, dict) else None
    schema = form.get("schema") if isinstance(form, dict) else None
    tools = tools_of(wanted.get("tools"), "input_schema")
    choice = wanted.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else None
    return Expectations(
        limit_tokens=limit_of(wanted, "max_tokens"),
        wants_json=isinstance(form, dict),
        schema=encoded_schema(schema),
        tools=tools,
        must_call=bool(tools) and kind in ("any", "tool"),
        writing=wanted_writing(last_user_text(wanted.get("messages"))),
    )
