"""Events of streamed chat and text completions, as bytes."""

import json
from typing import Any


def stream(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def delta(finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": fields, "finish_reason": finish_reason}
    return {"id": "a", "created": 1, "model": "m", "choices": [choice]}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"id": "a", "choices": [{"index": 0, "text": value, **more}]}
