"""MirrorFrame requests as a gateway would hand them over."""

import json
from typing import Any

import mmh3

from penumbra.router.mirror.frame import MirrorFrame

PROMPT_IDS = (10, 11, 12, 13)
ANSWER_IDS = (20, 21, 22, 23, 24)


def answer_bytes(
    text: str = "It rains in Zürich.",
    token_ids: tuple[int, ...] = ANSWER_IDS,
    completion_tokens: int | None = None,
    **choice: Any,
) -> bytes:
    """A whole chat answer with its token ids; by default the engine counts as many tokens."""
    whole = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
        "token_ids": token_ids,
        **choice,
    }
    counted = len(token_ids) if completion_tokens is None else completion_tokens
    usage = {"prompt_tokens": len(PROMPT_IDS), "completion_tokens": counted}
    return json.dumps(
        {"id": "x", "prompt_token_ids": PROMPT_IDS, "choices": [whole], "usage": usage}
    ).encode()


def mirrored(request_id: str = "req-1", **changes: Any) -> MirrorFrame:
    """A chat request that the baseline answered; each request id has a prompt of its own."""
    body = {"model": "demo", "messages": [{"role": "user", "content": f"Hello {request_id}"}]}
    fields: dict[str, Any] = {
        "request_id": request_id,
        "model": "demo",
        "variant": "full",
        "candidates": ("int8",),
        "slice": "default",
        "epoch": 1,
        "path": "/v1/chat/completions",
        "prompt_hash": mmh3.hash64(request_id, signed=False)[0],
        "session": 0,
        "body": json.dumps(body).encode(),
        "is_stream": False,
        "answer": answer_bytes(),
        "answered_at": 1000.0,
        "first_byte_seconds": 0.01,
        "total_seconds": 0.1,
    }
    return MirrorFrame(**{**fields, **changes})
