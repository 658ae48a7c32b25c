"""The request for the rest of a broken stream, from the client's request and what was sent. Pure.

The part of the text from which the other build goes on is a prefix of what the client has: fields
that count tokens shrink by it, and it becomes the beginning of the assistant's message or is
appended to the prompt. All other fields travel in the client's own bytes, numbers that no parser
here can hold included.

Reading order: Prefix, continuation_body, extended_prompt.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from penumbra.router.dispatch.continuation import (
    DEFAULT_MAX_TOKENS,
    LIMITS,
    CannotContinueError,
    Fields,
    Kind,
    is_true,
    read_integer,
)


@dataclass(frozen=True, slots=True)
class Prefix:
    """The text from which the rest is asked for: all that was sent, or less.

    What was sent beyond it is made again by the other build and not sent twice.
    """

    text: str = ""
    tokens: int = 0
    """Tokens of the text that were counted in the stream; fewer than it has if events merged."""
    is_exact: bool = False
    """Whether `tokens` is what the engine made, and no lower bound."""


def continuation_body(kind: Kind, fields: Fields, prefix: Prefix, tokens: int) -> dict[str, Any]:
    """Make the body of the request for the rest of the stream.

    Args:
        kind: The API of the stream.
        fields: The client's request.
        prefix: The text to go on from.
        tokens: Tokens of the prefix.

    Raises:
        CannotContinueError: The request asks to continue a message that is not one string.
    """
    rest: dict[str, Any] = dict(fields)
    if not prefix.text:
        return rest
    for name in LIMITS[kind]:
        limit = read_integer(fields, name, -1)
        if limit < 0 and kind == "completions":
            limit = DEFAULT_MAX_TOKENS
        if limit >= 0:
            # At least 1: a limit that another field overrules must still be one.
            rest[name] = max(1, limit - tokens)
    minimum = read_integer(fields, "min_tokens", 0)
    if minimum > 0:
        rest["min_tokens"] = max(0, minimum - tokens)
    kept = read_integer(fields, "truncate_prompt_tokens", -1)
    if kept >= 0:
        # The engine keeps the end of the prompt, to which the prefix belongs now.
        rest["truncate_prompt_tokens"] = kept + tokens
    rest.update(extended_prompt(kind, fields, prefix))
    return rest


def extended_prompt(kind: Kind, fields: Fields, prefix: Prefix) -> dict[str, Any]:
    """The prompt fields of a request with `prefix` as the beginning of the answer.

    Raises:
        CannotContinueError: The request asks to continue a message that is not one string.
    """
    if kind == "completions":
        return {"prompt": _extend(fields["prompt"], prefix.text)}
    if not prefix.text:
        return {"messages": fields["messages"]}
    messages: list[Any] = _decode(fields["messages"], list[msgspec.Raw])
    if messages and is_true(fields, "continue_final_message"):
        last = _decode(messages[-1], Fields)
        if "content" not in last or not bytes(last["content"]).startswith(b'"'):
            raise CannotContinueError("the message to continue is not one string")
        messages[-1] = {**last, "content": _extend(last["content"], prefix.text)}
    else:
        messages.append({"role": "assistant", "content": prefix.text})
    return {
        "messages": messages,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def _decode(raw: msgspec.Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CannotContinueError("the messages cannot be read") from error


def _extend(string: msgspec.Raw, text: str) -> msgspec.Raw:
    """Append `text` to a JSON string without reading it."""
    return msgspec.Raw(bytes(string)[:-1] + msgspec.json.encode(text)[1:])
