"""Continuation of a broken stream by another build, from the text that the client has. Pure.

From the request's body and the bytes sent so far, `read_progress` and `continuation_body` make the
request for the rest, and `Splice` makes its events the rest of the same stream. Streamed chat and
text completions of one choice are continued. Others are not, because the state of the lost engine
cannot be rebuilt from text: `n` > 1, tools and structured output (the grammar would start anew in
mid-answer), logprobs and echo (rows of the lost half would be missing or doubled), reasoning
content, several prompts or token-id prompts, and `/v1/responses` (its events are numbered and
repeat the whole answer at the end).

Reading order: check_continuable, read_progress, continuation_body, Splice.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from penumbra.router import sse

Kind = Literal["chat", "completions"]
KINDS: dict[bytes, Kind] = {b"/v1/chat/completions": "chat", b"/v1/completions": "completions"}

_UNCONTINUABLE = (
    "tools", "functions", "response_format", "structured_outputs", "guided_json", "guided_regex",
    "guided_choice", "guided_grammar", "logprobs", "top_logprobs", "prompt_logprobs", "echo",
    "return_token_ids", "use_beam_search", "prompt_embeds", "suffix",
)  # fmt: skip
_LIMITS = ("max_tokens", "max_completion_tokens")
_SAME_FOR_ALL = ("id", "created", "model")


class CannotContinueError(Exception):
    """The stream cannot be continued; the message says why, without content."""


@dataclass(slots=True)
class Progress:
    """The part of a stream that the client has."""

    head: dict[str, Any] = field(default_factory=dict)
    """`id`, `created` and `model` of its events."""
    text: str = ""
    content_events: int = 0
    """Events that carried a token: as many as tokens, or fewer if the engine merged some."""
    silent_events: int = 0
    """Tokens since the last content event without text, as the first token of a character that
    takes two. The continuation makes them again."""
    has_role: bool = False
    finish_reason: str | None = None
    has_usage: bool = False
    is_done: bool = False


def check_continuable(kind: Kind, body: dict[str, Any]) -> None:
    """Refuse a request whose stream cannot be continued.

    Raises:
        CannotContinueError: Names the field that rules it out.
    """
    if body.get("n") not in (None, 1):
        raise CannotContinueError("n is greater than 1")
    for name in _UNCONTINUABLE:
        value = body.get(name)
        if name == "response_format" and isinstance(value, dict) and value.get("type") == "text":
            continue
        # 0 is a wish too: vLLM then gives the chosen token's log-probability.
        if value is not None and value is not False and value not in ([], {}):
            raise CannotContinueError(f"{name} is set")
    if kind == "completions" and not isinstance(body.get("prompt"), str):
        raise CannotContinueError("the prompt is not one string")
    if kind == "chat" and not isinstance(body.get("messages"), list):
        raise CannotContinueError("there are no messages")


def read_progress(kind: Kind, sent: bytes) -> Progress:
    """Read the progress from the bytes sent, whole events only.

    Raises:
        CannotContinueError: The bytes hold something that text alone cannot continue.
    """
    progress = Progress()
    pieces: list[str] = []
    for payload in sse.payloads(sent):
        if payload == b"[DONE]":
            progress.is_done = True
            continue
        event = sse.read_object(payload)
        if event is None:
            raise CannotContinueError("an event was sent that is not JSON")
        _read_event(kind, event, progress, pieces)
    progress.text = "".join(pieces)
    return progress


def _read_event(kind: Kind, event: dict[str, Any], progress: Progress, pieces: list[str]) -> None:
    if not progress.head:
        progress.head = {name: event[name] for name in _SAME_FOR_ALL if name in event}
    choices = event.get("choices")
    if event.get("usage") and not choices:
        progress.has_usage = True
    for choice in choices or ():
        is_token = not choice.get("finish_reason")
        if kind == "chat":
            delta = choice.get("delta") or {}
            is_token = is_token and "role" not in delta
            if delta.get("tool_calls") or delta.get("reasoning_content") or delta.get("reasoning"):
                raise CannotContinueError("tool calls or reasoning were sent")
            progress.has_role = progress.has_role or "role" in delta
            text = delta.get("content")
        else:
            text = choice.get("text")
        if text:
            pieces.append(text)
            progress.content_events += 1 + progress.silent_events
            progress.silent_events = 0
        elif is_token and text is not None:
            progress.silent_events += 1
        progress.finish_reason = choice.get("finish_reason") or progress.finish_reason


def wants_usage(body: dict[str, Any]) -> bool:
    """Whether the client asked for a usage event."""
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def continuation_body(kind: Kind, body: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Make the body of the request for the rest of the stream."""
    rest = dict(body)
    for name in _LIMITS:
        if isinstance(rest.get(name), int):
            rest[name] = rest[name] - progress.content_events
    if isinstance(rest.get("min_tokens"), int):
        rest["min_tokens"] = max(0, rest["min_tokens"] - progress.content_events)
    rest.update(extended_prompt(kind, body, progress.text))
    return rest


def is_exhausted(rest: dict[str, Any]) -> bool:
    """Whether the limit on tokens leaves nothing to generate."""
    return any(isinstance(rest.get(name), int) and rest[name] <= 0 for name in _LIMITS)


def extended_prompt(kind: Kind, body: dict[str, Any], text: str) -> dict[str, Any]:
    """The prompt fields of `body` with `text` as the beginning of the answer.

    Raises:
        CannotContinueError: The body asks to continue a message that is not one string.
    """
    if kind == "completions":
        return {"prompt": body["prompt"] + text}
    messages = list(body["messages"])
    if not text:
        return {"messages": messages}
    last = messages[-1] if messages else None
    if body.get("continue_final_message") and isinstance(last, dict):
        if not isinstance(last.get("content"), str):
            raise CannotContinueError("the message to continue is not one string")
        messages[-1] = {**last, "content": last["content"] + text}
    else:
        messages.append({"role": "assistant", "content": text})
    return {
        "messages": messages,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


class Splice:
    """Makes the continuation's events the rest of the first stream.

    Args:
        kind: The API of the stream.
        progress: The part of the stream that the client has.
        prompt_tokens: Tokens of the client's own prompt, where known; corrects the usage.
    """

    def __init__(self, kind: Kind, progress: Progress, prompt_tokens: int | None) -> None:
        self._kind = kind
        self._progress = progress
        self._prompt_tokens = prompt_tokens

    def rewrite(self, payload: bytes) -> bytes | None:
        """Rewrite one event of the continuation for the client; None if it must not get it.

        Raises:
            CannotContinueError: The event is no JSON object, or an error.
        """
        event = sse.read_object(payload)
        if event is None or sse.is_error(event):
            raise CannotContinueError("the continuation broke as well")
        event.update(self._progress.head)
        if self._is_repeated_role(event):
            return None
        if isinstance(event.get("usage"), dict):
            event["usage"] = self.usage(event["usage"])
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    def _is_repeated_role(self, event: dict[str, Any]) -> bool:
        if self._kind != "chat" or not self._progress.has_role or not event.get("choices"):
            return False
        choice = event["choices"][0]
        delta = choice.get("delta") or {}
        delta.pop("role", None)
        has_news = delta.get("content") or choice.get("finish_reason")
        return not has_news

    def usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Make the usage of the whole answer from the usage of its second part."""
        asked = int(usage.get("prompt_tokens") or 0)
        own = self._prompt_tokens
        if own is None:
            own = max(0, asked - self._progress.content_events)
        # At the seam of prompt and text two tokens may have become one; no event is less than one.
        sent = max(asked - own, self._progress.content_events)
        generated = sent + int(usage.get("completion_tokens") or 0)
        return {
            **usage,
            "prompt_tokens": own,
            "completion_tokens": generated,
            "total_tokens": own + generated,
        }

    def closing_events(
        self, *, finish_reason: str | None, usage: dict[str, Any] | None
    ) -> list[bytes]:
        """Events still missing when the text is complete: finish reason, usage, `[DONE]`."""
        chunk = "chat.completion.chunk" if self._kind == "chat" else "text_completion"
        base = {**self._progress.head, "object": chunk}
        events = []
        if finish_reason is not None:
            content: dict[str, Any] = {"delta": {}} if self._kind == "chat" else {"text": ""}
            choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
            events.append({**base, "choices": [choice]})
        if usage is not None:
            events.append({**base, "choices": [], "usage": usage})
        encoded = [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events]
        return [*encoded, sse.DONE]
