"""A deterministic engine in vLLM's wire format: the same words for every prompt.

It continues an answer from whatever beginning it is given, honours `max_tokens`, and counts tokens
by words, so that a stream that two engines share can be compared with one of an undisturbed engine.
Pure: bytes in, bytes out; `behaviours` puts it behind a socket.
"""

import base64
import itertools
import json
import re
import struct
import zlib
from typing import Any

TEXT = "Zürich lies at the lake , Αθήνα by the sea 🌊 and 東京 too"
TOKENS = tuple(re.findall(r"\s*\S+", TEXT))
DONE = b"data: [DONE]\n\n"

Body = dict[str, Any]


def event(payload: object) -> bytes:
    """One server-sent event, as vLLM writes it."""
    return b"data: " + encode(payload) + b"\n\n"


def encode(payload: object) -> bytes:
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def engine_error(message: str, status: int, kind: str = "BadRequestError") -> bytes:
    """The body of vLLM's own errors."""
    return encode({"error": {"message": message, "type": kind, "param": None, "code": status}})


class EngineRefusal(Exception):
    """The engine's validation refuses the request."""


def count_tokens(text: str) -> int:
    """One token a word, its leading blank included."""
    return len(re.findall(r"\s*\S+", text))


class Engine:
    """One build.

    Args:
        name: Part of its answers' ids, so that they can be told apart.
        tokens: What it answers, a token each.
        created: The `created` of all its answers.
        silent: Positions of tokens that its tool parser swallows in a stream.
    """

    def __init__(
        self,
        name: str,
        tokens: tuple[str, ...] = TOKENS,
        created: int = 1_700_000_000,
        silent: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.tokens = tokens
        self.created = created
        self.silent = silent
        self._numbers = itertools.count()

    # Unary

    @property
    def cards(self) -> bytes:
        """Its own model list, which knows none of the public names here."""
        return encode({"object": "list", "data": [{"id": self.name, "object": "model"}]})

    def answer(self, path: str, body: Body) -> bytes:
        """The body of a unary answer."""
        match path:
            case "/tokenize":
                tokens = list(range(prompt_tokens(body)))
                return encode({"count": len(tokens), "max_model_len": 1024, "tokens": tokens})
            case "/detokenize":
                return encode({"prompt": TEXT})
            case "/v1/embeddings":
                return encode(self._embedding(body))
            case "/v1/responses":
                return encode(self._response(body, "completed", self._text(body)))
            case _:
                return encode(self._completion(path, body))

    def _completion(self, path: str, body: Body) -> Body:
        is_chat = path == "/v1/chat/completions"
        rest, finish = self._rest(body)
        text = "".join(rest)
        if body.get("echo") and not is_chat and not body.get("return_token_ids"):
            text = body["prompt"] + text
        made = len(rest) + (finish == "stop")
        ids = _token_ids(body, rest, finish)
        prompt_ids = _prompt_ids(body)
        of_prompt: Body = {"prompt_logprobs": None, "prompt_token_ids": prompt_ids}
        choices = []
        for index in range(body.get("n") or 1):
            message: Body = {"role": "assistant", "content": text}
            choices.append(
                {
                    "index": index,
                    **({"message": message} if is_chat else {"text": text}),
                    "logprobs": _logprobs(is_chat, body, rest),
                    "finish_reason": finish,
                    "stop_reason": None,
                    "token_ids": ids,
                    **({} if is_chat else of_prompt),
                }
            )
        head = self._head(path, body, "chat.completion" if is_chat else "text_completion")
        whole = {**head, "choices": choices, "usage": usage(prompt_tokens(body), made)}
        return {**whole, **of_prompt} if is_chat else whole

    def _embedding(self, body: Body) -> Body:
        vector: Any = (0.25, -0.5, 0.125)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        total = {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0}
        head = {"id": f"embd-{self.name}", "object": "list", "created": self.created}
        return {**head, "model": body["model"], "data": data, "usage": total}

    # Streams

    def events(self, path: str, body: Body) -> list[bytes]:
        """The events of a streamed answer, `[DONE]` included."""
        if path == "/v1/responses":
            return self._response_events(body)
        is_chat = path == "/v1/chat/completions"
        head = self._head(path, body, "chat.completion.chunk" if is_chat else "text_completion")
        rest, finish = self._rest(body)
        events = self._role_events(head, body) if is_chat else []
        for position, token in enumerate(rest):
            is_last = position == len(rest) - 1 and finish == "length"
            end = finish if is_last else None
            chunk = _chunk(is_chat, token, end, _logprobs(is_chat, body, [token]))
            chunk["token_ids"] = _token_ids(body, [token], None)
            if is_chat and position in self.silent and body.get("tools"):
                if not body.get("return_token_ids"):
                    continue
                chunk["delta"] = {}
            is_first = position == 0 and not is_chat
            events += _choice_events(head, body, chunk, _prompt_ids(body) if is_first else None)
        if finish == "stop":
            chunk = {**_chunk(is_chat, "", finish), "token_ids": _token_ids(body, [], finish)}
            events += _choice_events(head, body, chunk, None)
        if (body.get("stream_options") or {}).get("include_usage"):
            total = usage(prompt_tokens(body), len(rest) + (finish == "stop"))
            events.append(event({**head, "choices": [], "usage": total}))
        return [*events, DONE]

    def _role_events(self, head: Body, body: Body) -> list[bytes]:
        delta = {"role": "assistant", "content": ""}
        choice = {"delta": delta, "logprobs": None, "finish_reason": None}
        of_prompt = {"prompt_token_ids": _prompt_ids(body), "prompt_text": None}
        return [
            event({**head, "choices": [{"index": index, **choice}], **of_prompt})
            for index in _choices(body)
        ]

    def _response_events(self, body: Body) -> list[bytes]:
        text = self._text(body)
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress"}
        part = {"type": "output_text", "annotations": [], "text": "", "logprobs": []}
        where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        steps: list[tuple[str, Body]] = [
            ("response.created", {"response": self._response(body, "in_progress", None)}),
            ("response.output_item.added", {"output_index": 0, "item": {**item, "content": []}}),
            ("response.content_part.added", {**where, "part": part}),
        ]
        steps += [
            ("response.output_text.delta", {**where, "delta": token, "logprobs": []})
            for token in self._rest(body)[0]
        ]
        steps += [
            ("response.output_text.done", {**where, "text": text, "logprobs": []}),
            ("response.completed", {"response": self._response(body, "completed", text)}),
        ]
        return [
            b"event: %b\n" % kind.encode()
            + event({"type": kind, "sequence_number": number, **fields})
            for number, (kind, fields) in enumerate(steps)
        ]

    def _response(self, body: Body, status: str, text: str | None) -> Body:
        part: Body = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": status}
        made = len(self._rest(body)[0]) + 1
        counted = {"input_tokens": 3, "output_tokens": made, "total_tokens": 3 + made}
        details = {
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        return {
            "id": body.get("request_id") or f"resp_{self.name}",
            "object": "response",
            "created_at": self.created,
            "model": body["model"],
            "status": status,
            "output": [] if text is None else [{**item, "content": [part]}],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": None if text is None else {**counted, **details},
            **_raw_messages(body, None if text is None else self._rest(body)[0]),
        }

    # What it says

    def _head(self, path: str, body: Body, kind: str) -> Body:
        prefix = "chatcmpl" if path == "/v1/chat/completions" else "cmpl"
        identity = f"{prefix}-{self.name}-{next(self._numbers)}"
        return {
            "id": identity,
            "object": kind,
            "created": self.created,
            "model": body["model"],
        }

    def _text(self, body: Body) -> str:
        return "".join(self._rest(body)[0])

    def _rest(self, body: Body) -> tuple[list[str], str]:
        limit = body.get("max_completion_tokens")
        if limit is None:
            limit = body.get("max_tokens")
        if limit is not None and limit < 1:
            raise EngineRefusal(f"max_tokens must be at least 1, got {limit}.")
        tokens = list(_json_tokens(body) or self.tokens)
        rest = tokens[self._already_said(body, tokens) :]
        if limit is not None and limit <= len(rest):
            return rest[:limit], "length"
        return rest, "stop"

    def _already_said(self, body: Body, tokens: list[str]) -> int:
        said = _beginning(body)
        for count in range(len(tokens), 0, -1):
            text = "".join(tokens[:count])
            if said == text or ("messages" not in body and said.endswith(text)):
                return count
        if said and "messages" in body:
            raise EngineRefusal(f"this engine never says {said!r}")
        return 0


def prompt_tokens(body: Body) -> int:
    """Tokens of the prompt after the chat template, or of the text with its start token."""
    if "messages" not in body:
        prompt: Any = body.get("prompt", body.get("input", ""))
        return 1 + count_tokens(prompt if isinstance(prompt, str) else " ".join(map(str, prompt)))
    total = sum(4 + count_tokens(_content(message)) for message in body["messages"])
    return total - 1 if body.get("continue_final_message") else total + 3


def usage(prompt: int, completion: int) -> Body:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }


def _beginning(body: Body) -> str:
    if "messages" not in body:
        prompt = body.get("prompt", "")
        return prompt if isinstance(prompt, str) else ""
    if not body.get("continue_final_message"):
        return ""
    last = body["messages"][-1]
    if last["role"] != "assistant" or body.get("add_generation_prompt", True):
        raise EngineRefusal("continue_final_message wants an assistant message and no new turn")
    if sum(message["role"] == "assistant" for message in body["messages"][-2:]) > 1:
        raise EngineRefusal("conversation roles must alternate user/assistant")
    return _content(last)


def _content(message: Body) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _json_tokens(body: Body) -> list[str] | None:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        names = wanted["json_schema"]["schema"].get("required", [])
        return [json.dumps(dict.fromkeys(names, True))]
    return ["{}"] if wanted.get("type") == "json_object" else None


def _choices(body: Body) -> range:
    return range(body.get("n") or 1)


def _chunk(is_chat: bool, text: str, finish: str | None = None, rows: Any = None) -> Body:
    content: Body = {"delta": {"content": text}} if is_chat else {"text": text}
    ends: Body = {"stop_reason": None} if finish or not is_chat else {}
    of_prompt: Body = {} if is_chat else {"prompt_token_ids": None}
    return {**content, "logprobs": rows, "finish_reason": finish, **ends, **of_prompt}


def _choice_events(
    head: Body, body: Body, chunk: Body, prompt_ids: list[int] | None
) -> list[bytes]:
    if prompt_ids is not None:
        chunk["prompt_token_ids"] = prompt_ids
    return [event({**head, "choices": [{"index": at, **chunk}]}) for at in _choices(body)]


def _token_ids(body: Body, tokens: list[str], finish: str | None) -> list[int] | None:
    if not body.get("return_token_ids"):
        return None
    return [zlib.crc32(token.encode()) % 32_000 for token in tokens] + [2] * (finish == "stop")


def _prompt_ids(body: Body) -> list[int] | None:
    return list(range(prompt_tokens(body))) if body.get("return_token_ids") else None


def _raw_messages(body: Body, tokens: list[str] | None) -> Body:
    """The fields in which a response tells its token ids; null unless they are asked for."""
    if tokens is None or not body.get("enable_response_messages"):
        return {"input_messages": None, "output_messages": None}
    ids = [zlib.crc32(token.encode()) % 32_000 for token in tokens] + [2]
    asked = {"message": str(body.get("input")), "tokens": list(range(prompt_tokens(body)))}
    said = {"message": "".join(tokens), "tokens": ids}
    return {
        "input_messages": [{**asked, "type": "raw_message_tokens"}],
        "output_messages": [{**said, "type": "raw_message_tokens"}],
    }


def _logprobs(is_chat: bool, body: Body, tokens: list[str]) -> Body | None:
    wanted = body.get("logprobs")
    if wanted is None or wanted is False:
        return None
    if is_chat:
        rows = [
            {"token": token, "logprob": -0.25, "bytes": list(token.encode()), "top_logprobs": []}
            for token in tokens
        ]
        return {"content": rows}
    return {
        "tokens": tokens,
        "token_logprobs": [-0.25] * len(tokens),
        "top_logprobs": [{token: -0.25} for token in tokens],
        "text_offset": list(itertools.accumulate((len(t) for t in tokens[:-1]), initial=0)),
    }
