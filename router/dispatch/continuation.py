"""Continuation of a broken stream by another build, from the text that the client has. Pure.

Streamed chat and text completions of one choice are continued. Others are not, because the state of
the lost engine cannot be rebuilt from text: `n` > 1, tools and structured output (the grammar would
start anew in mid-answer), logprobs and echo (rows of the lost half would be missing or doubled),
reasoning that was sent or hidden, several prompts or token-id prompts, and `/v1/responses` (its
events are numbered and repeat the whole answer at the end).

This module reads the request: whether its stream may be continued, and what of it decides where the
second half begins. `continuation_request` makes the request for the rest, `sent_progress` reads the
part that was sent, `stream_end` tells a complete stream, and `splice` joins the halves.

Reading order: check_continuable, StopStrings, token_limit.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

Kind = Literal["chat", "completions"]
KINDS: dict[bytes, Kind] = {b"/v1/chat/completions": "chat", b"/v1/completions": "completions"}

Fields = dict[str, msgspec.Raw]
"""The top-level fields of a request, each value in the client's own bytes."""

DEFAULT_MAX_TOKENS: Final = 16
"""Limit of a text completion that names none, or null: OpenAI's API, vLLM's
`entrypoints/openai/completion/protocol.py`."""
LIMITS: Final[dict[Kind, tuple[str, ...]]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
}
"""Fields that limit the answer's tokens; the first that is set counts."""

_UNCONTINUABLE = (
    "tools", "functions", "response_format", "structured_outputs", "guided_json", "guided_regex",
    "guided_choice", "guided_grammar", "logprobs", "top_logprobs", "prompt_logprobs", "echo",
    "return_token_ids", "use_beam_search", "prompt_embeds", "suffix",
)  # fmt: skip
_SHORT_BYTES = 512
"""A longer value is no way to say that a field is not set."""
_MOST_MARKS = 100_000
"""A body with more values would hold up the event loop for too long (about 1 ms at this number)."""
_TRUE = (True, 1, "1", "true", "t", "yes", "y", "on")
_MARKED_CHARACTERS = 64
"""Characters of a stop string that are looked for at the end of the text."""
_MOST_STOP_STRINGS = 1_000
_MOST_DIGITS = 18


class CannotContinueError(Exception):
    """The stream cannot be continued; the message says why, without content."""


_decode_fields = msgspec.json.Decoder(Fields).decode


def read_fields(body: bytes) -> Fields:
    """Read the top-level fields of a request.

    Raises:
        CannotContinueError: The body is not a JSON object, or holds too many values.
    """
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MOST_MARKS:
        raise CannotContinueError("the request holds too many values")
    try:
        return _decode_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CannotContinueError("the request is not a JSON object") from error


def value_of(fields: Fields, name: str) -> Any:
    """Read one field; None if it is absent.

    Raises:
        CannotContinueError: The value cannot be read.
    """
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CannotContinueError(f"{name} cannot be read") from error


def check_continuable(kind: Kind, fields: Fields) -> None:
    """Refuse a request whose stream cannot be continued.

    Raises:
        CannotContinueError: Names the field that rules it out.
    """
    if value_of(fields, "n") not in (None, 1):
        raise CannotContinueError("n is greater than 1")
    for name in _UNCONTINUABLE:
        if _is_set(fields, name):
            raise CannotContinueError(f"{name} is set")
    # Reasoning that the client was not shown is lost with the engine.
    if value_of(fields, "include_reasoning") not in (None, *_TRUE):
        raise CannotContinueError("include_reasoning is false")
    if kind == "completions" and not _starts(fields, "prompt", b'"'):
        raise CannotContinueError("the prompt is not one string")
    if kind == "chat" and not _starts(fields, "messages", b"["):
        raise CannotContinueError("there are no messages")
    if read_integer(fields, "truncate_prompt_tokens", -1) >= 0 and (
        value_of(fields, "truncation_side") == "right"
    ):
        raise CannotContinueError("the prompt's end is cut off")


def _is_set(fields: Fields, name: str) -> bool:
    raw = fields.get(name)
    if raw is None:
        return False
    if len(bytes(raw)) > _SHORT_BYTES:
        return True
    value = value_of(fields, name)
    if name == "response_format" and isinstance(value, dict) and value.get("type") == "text":
        return False
    # 0 is a wish too: vLLM then gives the chosen token's log-probability.
    return value is not None and value is not False and value not in ([], {})


def _starts(fields: Fields, name: str, first: bytes) -> bool:
    raw = fields.get(name)
    return raw is not None and bytes(raw).startswith(first)


def is_true(fields: Fields, name: str) -> bool:
    """Whether a field says yes, in any of the ways that vLLM takes for one."""
    value = value_of(fields, name)
    return (value.lower() if isinstance(value, str) else value) in _TRUE


def read_integer(fields: Fields, name: str, default: int) -> int:
    """Read a whole number, in any of the ways that vLLM takes for one.

    Raises:
        CannotContinueError: The field is set to anything else.
    """
    value = value_of(fields, name)
    if value is None:
        return default
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value.strip()[:_MOST_DIGITS])
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise CannotContinueError(f"{name} is not a whole number")


def token_limit(kind: Kind, fields: Fields) -> int | None:
    """Most tokens of the answer; None: as many as the context holds."""
    for name in LIMITS[kind]:
        limit = read_integer(fields, name, -1)
        if limit >= 0:
            return limit
    return None if kind == "chat" else DEFAULT_MAX_TOKENS


def depends_on_count(kind: Kind, fields: Fields) -> bool:
    """Whether the request for the rest depends on how many tokens were sent."""
    return (
        token_limit(kind, fields) is not None
        or read_integer(fields, "min_tokens", 0) > 0
        or read_integer(fields, "truncate_prompt_tokens", -1) >= 0
    )


def wants_usage(fields: Fields) -> bool:
    """Whether the client asked for a usage event."""
    options = value_of(fields, "stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


@dataclass(frozen=True, slots=True)
class StopStrings:
    """The strings that end an answer, and how they affect what is sent of it."""

    strings: tuple[str, ...] = ()
    is_included: bool = False
    """Whether the string is sent as the answer's end."""

    @classmethod
    def of(cls, fields: Fields) -> "StopStrings":
        """Read them from a request.

        Raises:
            CannotContinueError: They are neither a string nor a list of strings.
        """
        stop = value_of(fields, "stop")
        strings = [stop] if isinstance(stop, str) else stop or []
        if not isinstance(strings, list) or not all(isinstance(item, str) for item in strings):
            raise CannotContinueError("stop is not a list of strings")
        if len(strings) > _MOST_STOP_STRINGS:
            raise CannotContinueError("there are too many stop strings")
        is_included = is_true(fields, "include_stop_str_in_output")
        return cls(tuple(filter(None, strings)), is_included)

    @property
    def held_back(self) -> int:
        """Characters that vLLM holds back at the end of unfinished text.

        They may be the beginning of a stop string (`v1/engine/detokenizer.py`); their tokens are
        made, and the client has no text of them.
        """
        if self.is_included or not self.strings:
            return 0
        return max(map(len, self.strings)) - 1

    def begun_at(self, text: str) -> int:
        """Index at which a stop string may have begun at the end of `text`; its length if none.

        An engine that goes on after this index would not see the string as a whole. Text of an
        engine that holds back never ends so, but by chance.
        """
        for length in range(min(_MARKED_CHARACTERS, len(text)), 0, -1):
            end = text[-length:]
            if any(len(item) > length and item.startswith(end) for item in self.strings):
                return len(text) - length
        return len(text)
