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


def response_frame(request_id: str = "req-1", **changes: Any) -> MirrorFrame:
    """A Responses request that the baseline answered, with its token ids."""
    raw = {"message": "", "type": "raw_message_tokens"}
    part = {"type": "output_text", "text": "It rains in Zürich."}
    told = {
        "id": "resp_1",
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [part]}],
        "usage": {"output_tokens": len(ANSWER_IDS)},
        "input_messages": [{**raw, "tokens": PROMPT_IDS}],
        "output_messages": [{**raw, "tokens": ANSWER_IDS}],
    }
    body = {"model": "demo", "input": f"Hello {request_id}"}
    fields: dict[str, Any] = {
        "path": "/v1/responses",
        "body": json.dumps(body).encode(),
        "answer": json.dumps(told).encode(),
    }
    return mirrored(request_id, **{**fields, **changes})


def message_frame(request_id: str = "req-1", **changes: Any) -> MirrorFrame:
    """A request of Anthropic's API that the baseline answered; it tells no token ids."""
    content = [{"type": "text", "text": "It rains in Zürich."}]
    told = {"type": "message", "content": content, "stop_reason": "end_turn"}
    turn = {"role": "user", "content": f"Hello {request_id}"}
    body = {"model": "demo", "max_tokens": 50, "messages": [turn]}
    fields: dict[str, Any] = {
        "path": "/v1/messages",
        "body": json.dumps(body).encode(),
        "answer": json.dumps(told).encode(),
    }
    return mirrored(request_id, **{**fields, **changes})


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
