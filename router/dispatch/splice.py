"""Splice of two halves of a stream: the second build's events become the rest of the first. Pure.

The second half carries the first one's `id`, `created` and `model`. Its role is not said twice,
text that it makes again is left out, and its usage becomes that of the whole answer.
"""

from typing import Any

import msgspec

from penumbra.router import sse
from penumbra.router.dispatch.continuation import CannotContinueError, Kind, StopStrings
from penumbra.router.dispatch.continuation_request import Prefix
from penumbra.router.dispatch.sent_progress import SentProgress

_TEXT_FIELDS: dict[Kind, str] = {"chat": "content", "completions": "text"}
_COMPARED_CHARACTERS = 1_000


class DivergedError(Exception):
    """The second build does not make again what the client has beyond the prefix."""


class Splice:
    """Makes the continuation's events the rest of the first stream.

    Args:
        kind: The API of the stream.
        progress: The part of the stream that the client has.
        prefix: The text from which the continuation goes on.
        stops: The request's stop strings.
    """

    def __init__(
        self, kind: Kind, progress: SentProgress, prefix: Prefix, stops: StopStrings
    ) -> None:
        self._kind = kind
        self._has_role = progress.has_role
        self._head = progress.head
        self._stops = stops
        self._again = progress.text[len(prefix.text) :]
        self._made_again = 0
        self._is_exact = prefix.is_exact
        # White space may differ: it was made again only because a template would have lost it.
        self._is_lenient = kind == "chat" and self._again.isspace()
        self.prompt_tokens: int | None = progress.prompt_tokens
        """Tokens of the client's own prompt, where known; corrects the usage."""
        self.prefix_tokens = prefix.tokens
        """Tokens of the prefix, or a lower bound."""
        self.is_finished = False
        """Whether the answer has its finish reason."""

    def read(self, payload: bytes) -> dict[str, Any]:
        """Read one event of the continuation.

        Raises:
            CannotContinueError: It is no event of this API, or an error.
        """
        event = sse.read_object(payload)
        if event is None or sse.is_error(event):
            raise CannotContinueError("the continuation broke as well")
        choices = event.get("choices")
        if choices is None:
            return event
        if not isinstance(choices, list) or len(choices) > 1:
            raise CannotContinueError("the continuation has not one choice")
        for choice in choices:
            if not isinstance(choice, dict) or not self._is_sound(choice):
                raise CannotContinueError("the continuation has an odd choice")
        return event

    def _is_sound(self, choice: dict[str, Any]) -> bool:
        if self._kind == "chat" and not isinstance(choice.setdefault("delta", {}), dict):
            return False
        text = self._holder(choice).get(_TEXT_FIELDS[self._kind])
        return text is None or isinstance(text, str)

    def _holder(self, choice: dict[str, Any]) -> dict[str, Any]:
        """The object that holds the text of a choice."""
        delta: dict[str, Any] = choice["delta"] if self._kind == "chat" else choice
        return delta

    def rewrite(self, event: dict[str, Any]) -> bytes | None:
        """Rewrite one event, as `read` returned it; None if the client must not get it.

        Raises:
            DivergedError: The text is not what the client has already.
        """
        choices = event.get("choices")
        if choices and not self._rewrite_choice(choices[0]) and not event.get("usage"):
            return None
        event.update(self._head)
        if isinstance(event.get("usage"), dict):
            event["usage"] = self.usage(event["usage"])
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    def _rewrite_choice(self, choice: dict[str, Any]) -> bool:
        """Take out what the client has; returns whether anything is left to tell."""
        holder, name = self._holder(choice), _TEXT_FIELDS[self._kind]
        had_text = bool(holder.get(name))
        if self._made_again < len(self._again):
            self._leave_out(choice, holder, name)
        if self._has_role:
            holder.pop("role", None)
        if choice.get("finish_reason"):
            self.is_finished = True
            return True
        if self._kind == "completions":
            return not had_text or bool(holder.get(name))
        return not self._has_role or any(holder.values())

    def _leave_out(self, choice: dict[str, Any], holder: dict[str, Any], name: str) -> None:
        text = holder.get(name) or ""
        rest = self._again[self._made_again : self._made_again + len(text)]
        if text[: len(rest)] == rest:
            self._made_again += len(rest)
        elif self._is_lenient:
            rest = _common_beginning(rest, text)
            self._made_again = len(self._again)
        else:
            raise DivergedError
        if text:
            holder[name] = text[len(rest) :]
        if not self._is_lenient and self._has_other_end(choice, holder, name):
            raise DivergedError

    def _has_other_end(self, choice: dict[str, Any], holder: dict[str, Any], name: str) -> bool:
        """Whether the answer ends, or goes another way, before all is made again.

        It may end there by a stop string that had begun, or by its limit.
        """
        if self._made_again == len(self._again):
            return False
        if self._kind == "chat" and any(
            value for field, value in holder.items() if field not in ("role", name)
        ):
            return True
        reason = choice.get("finish_reason")
        if not reason or reason == "length":
            return False
        return self._stops.begun_at(self._again[self._made_again :]) > 0

    def usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Make the usage of the whole answer from the usage of its second part."""
        asked = _count(usage.get("prompt_tokens"))
        own = self.prompt_tokens
        if own is None:
            own = max(0, asked - self.prefix_tokens)
        # At the seam of prompt and text two tokens may have become one.
        sent = self.prefix_tokens if self._is_exact else max(asked - own, self.prefix_tokens)
        generated = sent + _count(usage.get("completion_tokens"))
        return {
            **usage,
            "prompt_tokens": own,
            "completion_tokens": generated,
            "total_tokens": own + generated,
        }


def closing_events(
    kind: Kind, head: dict[str, Any], finish_reason: str | None, usage: dict[str, int] | None
) -> list[bytes]:
    """Make the events that a complete answer lacks: finish reason, usage, `[DONE]`.

    Args:
        kind: The API of the stream.
        head: `id`, `created` and `model` of its events.
        finish_reason: The finish reason; None if the client has it.
        usage: The usage; None if the client has it or does not get one.
    """
    chunk = "chat.completion.chunk" if kind == "chat" else "text_completion"
    base = {**head, "object": chunk}
    events = []
    if finish_reason is not None:
        content: dict[str, Any] = {"delta": {}} if kind == "chat" else {"text": ""}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
        events.append({**base, "choices": [choice]})
    if usage is not None:
        events.append({**base, "choices": [], "usage": usage})
    encoded = [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events]
    return [*encoded, sse.DONE]


def _common_beginning(one: str, other: str) -> str:
    length = 0
    for a, b in zip(one[:_COMPARED_CHARACTERS], other, strict=False):
        if a != b:
            break
        length += 1
    return one[:length]


def _count(value: Any) -> int:
    """A number of tokens; 0 if the value is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Make the usage of an answer."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
