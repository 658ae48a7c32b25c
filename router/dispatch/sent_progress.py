"""The part of a broken stream that the client has, and where another build goes on. Pure.

An engine makes tokens and sends text, and the two do not end together. Text lags behind where a
stop string may have begun, or where a character takes several tokens; one event may carry several
tokens. So the rest is asked for from the end of a token that the text holds whole, and never from
the middle of one, where a tokenizer would cut the text another way than the model did.

Reading order: SentProgress, choose_prefix.
"""

from typing import Any

import msgspec

from penumbra.router import sse
from penumbra.router.dispatch.continuation import CannotContinueError, Kind, StopStrings
from penumbra.router.dispatch.continuation_request import Prefix

_SAME_FOR_ALL = ("id", "created", "model")


class _Delta(msgspec.Struct):
    role: Any = None
    content: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    token_ids: Any = None
    prompt_token_ids: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    id: Any = msgspec.UNSET
    created: Any = msgspec.UNSET
    model: Any = msgspec.UNSET
    error: Any = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    prompt_token_ids: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class SentProgress:
    """The part of a stream that the client has. Reads it event by event.

    Args:
        kind: The API of the stream.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._pieces: list[str] = []
        self._characters = 0
        self.head: dict[str, Any] = {}
        """`id`, `created` and `model` of its events."""
        self.has_role = False
        self.finish_reason: str | None = None
        self.stop_reason: Any = None
        """The stop string, or the id of the stop token, that ended the answer."""
        self.has_usage = False
        """Whether the client has the usage of the whole answer."""
        self.is_done = False
        self.prompt_tokens: int | None = None
        """Tokens of the client's own prompt, if the stream said so."""
        self.tokens = 0
        """Tokens that the engine made, or a lower bound of them: an event is one at least."""
        self.is_exact = True
        """Whether every event said how many tokens there are."""
        self.marks: list[tuple[int, int]] = []
        """Characters sent and tokens made, after each event with text."""

    @property
    def text(self) -> str:
        """All text that was sent."""
        if len(self._pieces) != 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def read(self, payload: bytes) -> None:
        """Read the data of the next event.

        Raises:
            CannotContinueError: It holds something that text alone cannot continue, or is no event.
        """
        if payload == b"[DONE]":
            self.is_done = True
            return
        try:
            event = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CannotContinueError("an event was sent that is not one") from error
        if event.error:
            raise CannotContinueError("an error was sent")
        if not self.head:
            values = ((name, getattr(event, name)) for name in _SAME_FOR_ALL)
            self.head = {name: value for name, value in values if value is not msgspec.UNSET}
        self._read_prompt(event)
        if event.usage is not None and not event.choices:
            self.has_usage = True
        if event.choices:
            if len(event.choices) > 1 or event.choices[0].index not in (None, 0):
                raise CannotContinueError("more than one choice was sent")
            self._read_choice(event.choices[0], event.usage)

    def _read_prompt(self, event: _Event) -> None:
        ids = event.prompt_token_ids
        if event.choices and not ids:
            ids = event.choices[0].prompt_token_ids
        if self.prompt_tokens is None and isinstance(ids, list):
            self.prompt_tokens = len(ids)
        if event.usage is not None and event.usage.prompt_tokens:
            self.prompt_tokens = event.usage.prompt_tokens

    def _read_choice(self, choice: _Choice, usage: _Usage | None) -> None:
        text, is_token = choice.text, choice.text is not None
        if self._kind == "chat":
            text, is_token = self._read_delta(choice.delta or _Delta())
        self._count(choice, usage, is_token=bool(text or is_token or choice.finish_reason))
        if text:
            self._pieces.append(text)
            self._characters += len(text)
            self.marks.append((self._characters, self.tokens))
        if choice.finish_reason:
            self.finish_reason, self.stop_reason = choice.finish_reason, choice.stop_reason

    def _read_delta(self, delta: _Delta) -> tuple[str | None, bool]:
        if (
            delta.reasoning or delta.reasoning_content or delta.refusal or delta.audio
            or delta.tool_calls or delta.function_call
        ):  # fmt: skip
            raise CannotContinueError("more than text was sent")
        self.has_role = self.has_role or delta.role is not None
        return delta.content, delta.content is not None and delta.role is None

    def _count(self, choice: _Choice, usage: _Usage | None, *, is_token: bool) -> None:
        if not is_token:
            return
        told = usage.completion_tokens if usage is not None else None
        if isinstance(choice.token_ids, list):
            self.tokens += len(choice.token_ids)
        elif told is not None and told >= self.tokens:
            self.tokens = told
        else:
            self.is_exact = False
            self.tokens += 1


def read_progress(kind: Kind, sent: bytes) -> SentProgress:
    """Read the progress from the bytes sent, whole events only.

    Raises:
        CannotContinueError: The bytes hold something that text alone cannot continue.
    """
    progress = SentProgress(kind)
    for payload in sse.payloads(sent):
        progress.read(payload)
    return progress


def choose_prefix(kind: Kind, progress: SentProgress, stops: StopStrings) -> Prefix:
    """Choose the longest text from which another build goes on as the first one would have.

    - It ends where a token ended. vLLM sends all text but the last `held_back` characters, so after
      an event its own text was longer by so many, and ended with a token.
    - It does not end within what may be a stop string, which the other build would not recognise by
      its second half.
    - In a chat it does not end in white space, which templates cut off. (Text of white space only
      is not even found by some versions of transformers.)
    """
    text = progress.text
    latest = min(len(text), stops.begun_at(text))
    for characters, tokens in reversed(progress.marks):
        end = characters + stops.held_back
        if end <= latest and not (kind == "chat" and text[end - 1].isspace()):
            return Prefix(text[:end], tokens, progress.is_exact)
    return Prefix(is_exact=True)


def whole_prefix(progress: SentProgress, stops: StopStrings) -> Prefix:
    """All text that was sent, for a build that would not make its end again.

    Its tokens are a guess where text was held back: no event says which of them it holds.
    """
    if not progress.marks:
        return Prefix(is_exact=True)
    if stops.held_back:
        return Prefix(progress.text, len(progress.marks))
    return Prefix(progress.text, progress.marks[-1][1], progress.is_exact)
