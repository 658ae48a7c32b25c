"""An answer of Anthropic's Messages API, whole and as a stream, as vLLM writes it."""

import json
from typing import Any

from tests.support.behaviours import STREAM_TYPE, chunk, head, raw, respond
from tests.support.scripted_connection import Behaviour

TEXT = "Hello there"
USAGE = {"input_tokens": 3, "output_tokens": 2}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": TEXT}],
    "model": "demo",
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": USAGE,
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Hello "},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "there"},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": USAGE,
    },
    {"type": "message_stop"},
]


def message() -> Behaviour:
    """The whole answer."""
    return respond(200, json.dumps(MESSAGE).encode())


def message_stream() -> Behaviour:
    """The answer as a stream."""
    events = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in EVENTS]
    start = head(200, [STREAM_TYPE, ("transfer-encoding", "chunked")])
    return raw(start + b"".join(map(chunk, events)) + b"0\r\n\r\n", then=None)
