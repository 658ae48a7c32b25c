"""Reads an engine's answer from its bytes: chat or text completion, whole or streamed. Pure.

One set of shapes reads all four forms, since their fields do not clash. Fields that are not looked
at are skipped without being decoded. Nothing here raises, whatever the bytes are.
"""

from collections.abc import Iterator

import msgspec

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"

_DONE = b"[DONE]"
_NO_ROWS = (b"", b"null")


class ToolCall(msgspec.Struct, frozen=True):
    """One call that an answer asks for."""

    name: str
    arguments: str
    """As the engine wrote them; JSON if the engine made no mistake."""


class Choice(msgspec.Struct, frozen=True):
    """One of the texts of an answer."""

    index: int = 0
    text: str = ""
    """What the user reads; without reasoning."""
    reasoning: str = ""
    refusal: str = ""
    finish_reason: str | None = None
    """None if the answer broke off."""
    tool_calls: tuple[ToolCall, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    """Empty if the engine was not asked for them."""
    token_ids: tuple[int, ...] = ()
    """Of all that was generated, reasoning and special tokens included. Empty likewise."""
    logprobs: tuple[float, ...] = ()
    """Log-probability of each of `token_ids`, by the decoding that made them; empty if the engine
    was not asked for them, or did not tell them of all."""


class Answer(msgspec.Struct, frozen=True):
    """One build's answer to one request."""

    choices: tuple[Choice, ...]
    """At least one, in the order of their index."""
    completion_tokens: int | None = None
    """As the engine counts them, over all choices; None if it did not say."""
    has_error: bool = False
    """A streamed answer held an error, or something that is no event of a completion."""

    @property
    def is_complete(self) -> bool:
        """Whether every choice came to an end, and nothing went wrong on the way."""
        return not self.has_error and all(choice.finish_reason for choice in self.choices)


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Row(msgspec.Struct):
    logprob: float | None = None


class _Rows(msgspec.Struct):
    """Log-probabilities of a choice: `content` in chats, `token_logprobs` in text completions."""

    content: list[_Row] | None = None
    token_logprobs: list[float | None] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None
    logprobs: msgspec.Raw = msgspec.Raw()
    """Decoded by itself: an answer whose log-probabilities cannot be read is one nevertheless."""


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice] | None = None
    prompt_token_ids: list[int] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_decoder = msgspec.json.Decoder(_Body)
_rows_decoder = msgspec.json.Decoder(_Rows | None)


def read_answer(path: str, is_stream: bool, raw: bytes) -> Answer | None:
    """Read the whole body of an engine's answer.

    Args:
        path: `CHAT_PATH` or `COMPLETIONS_PATH`.
        is_stream: Whether it is server-sent events.
        raw: The body.

    Returns:
        The answer. None if there is none in it: another path, an error, no choice, or bytes that
        are no completion at all. A stream that went wrong midway gives what came before, with
        `is_complete` False.
    """
    if path not in (CHAT_PATH, COMPLETIONS_PATH):
        return None
    draft = _Draft()
    for payload in payloads(raw) if is_stream else (raw,):
        if is_stream and payload == _DONE:
            break
        draft.read(payload)
    return draft.finish()


def _logprobs(raw: msgspec.Raw) -> list[float | None]:
    """Read the log-probabilities of a choice; none if they are in a form that is not known."""
    try:
        rows = _rows_decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    if rows is None:
        return []
    return [row.logprob for row in rows.content or ()] or rows.token_logprobs or []


def payloads(raw: bytes) -> Iterator[bytes]:
    """Yield the data of each server-sent event."""
    for event in raw.replace(b"\r\n", b"\n").split(b"\n\n"):
        # Nearly every event is one line.
        if event.startswith(b"data:") and b"\n" not in event:
            yield event[5:].strip()
            continue
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines:
            yield b"\n".join(lines)


class _Draft:
    """An answer while its parts are put together."""

    def __init__(self) -> None:
        self._choices: dict[int, _ChoiceDraft] = {}
        self._prompt_token_ids: list[int] = []
        self._completion_tokens: int | None = None
        self._has_error = False

    def read(self, payload: bytes) -> None:
        try:
            body = _decoder.decode(payload)
        # A number of too many digits is a ValueError, as is text that is not UTF-8.
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._has_error = True
            return
        if body.error is not None and bytes(body.error) != b"null":
            self._has_error = True
        if body.prompt_token_ids is not None:
            self._prompt_token_ids = body.prompt_token_ids
        if body.usage is not None and body.usage.completion_tokens is not None:
            self._completion_tokens = body.usage.completion_tokens
        for choice in body.choices or ():
            if choice.index not in self._choices:
                self._choices[choice.index] = _ChoiceDraft(choice.index)
            self._choices[choice.index].read(choice)

    def finish(self) -> Answer | None:
        if not self._choices:
            return None
        prompt = tuple(self._prompt_token_ids)
        return Answer(
            choices=tuple(self._choices[index].finish(prompt) for index in sorted(self._choices)),
            completion_tokens=self._completion_tokens,
            has_error=self._has_error,
        )


class _CallDraft:
    """One tool call while its parts are put together."""

    __slots__ = ("arguments", "name")

    def __init__(self) -> None:
        self.name = ""
        self.arguments: list[str] = []


class _ChoiceDraft:
    """One choice while its parts are put together."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusals: list[str] = []
        self._finish_reason: str | None = None
        self._calls: dict[int, _CallDraft] = {}
        self._prompt_token_ids: list[int] | None = None
        self._token_ids: list[int] = []
        self._logprobs: list[float | None] = []

    def read(self, choice: _Choice) -> None:
        if choice.text:
            self._texts.append(choice.text)
        self._finish_reason = choice.finish_reason or self._finish_reason
        if choice.prompt_token_ids is not None:
            self._prompt_token_ids = choice.prompt_token_ids
        self._token_ids += choice.token_ids or ()
        if bytes(choice.logprobs) not in _NO_ROWS:
            self._logprobs += _logprobs(choice.logprobs)
        message = choice.message or choice.delta
        if message is not None:
            self._read_message(message)

    def _read_message(self, message: _Message) -> None:
        if message.content:
            self._texts.append(message.content)
        reasoning = message.reasoning or message.reasoning_content
        if reasoning:
            self._reasoning.append(reasoning)
        if message.refusal:
            self._refusals.append(message.refusal)
        for place, call in enumerate(message.tool_calls or ()):
            # A streamed piece says which call it belongs to; in a whole message each is its own.
            index = place if call.index is None else call.index
            draft = self._calls.setdefault(index, _CallDraft())
            if call.function is not None:
                # Sent once, with the first piece; some servers repeat it with each.
                draft.name = draft.name or call.function.name or ""
                draft.arguments.append(call.function.arguments or "")

    def finish(self, prompt_token_ids: tuple[int, ...]) -> Choice:
        own = self._prompt_token_ids
        return Choice(
            index=self._index,
            text="".join(self._texts),
            reasoning="".join(self._reasoning),
            refusal="".join(self._refusals),
            finish_reason=self._finish_reason,
            tool_calls=tuple(
                ToolCall(self._calls[index].name, "".join(self._calls[index].arguments))
                for index in sorted(self._calls)
            ),
            prompt_token_ids=prompt_token_ids if own is None else tuple(own),
            token_ids=tuple(self._token_ids),
            logprobs=self._known_logprobs(),
        )

    def _known_logprobs(self) -> tuple[float, ...]:
        known = tuple(value for value in self._logprobs if value is not None)
        is_complete = len(known) == len(self._logprobs) == len(self._token_ids)
        return known if is_complete else ()
