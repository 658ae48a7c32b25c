"""Features of a request body for slice and targeting rules, each computed when first used. Pure.

Nothing here raises, whatever the body holds: the engine judges a body, this module only helps to
route it. Work on text is bounded: only its beginning is read for script and code.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Self

import msgspec

from penumbra.monitoring.signals.scripts import dominant_script
from penumbra.router.flags.modality import UNKNOWN, modality_of
from penumbra.router.flags.request_routes import CHAT

CODE_CHARS = 2048
"""Characters of the last user text that are searched for code."""
SCRIPT_CHARS = 512
"""Characters of it whose script is counted: counting letters costs more."""

FIELDS = (
    "messages", "prompt", "input", "instructions", "tools", "functions", "text", "response_format",
    "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
)  # fmt: skip
"""The body fields that are read; a caller may leave all others undecoded."""

_GUIDES = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")

_DECLARATION = re.compile(
    r"^[ \t]*(?:def \w+\(|class \w+(?:[({]|:$)|fn \w+[(<]|func \w+\(|function \w*\(|#include ?[<\"]"
    r"|import \w+(?:\.\w+)*;?$|from [\w.]+ import |(?:public|private|static) \w+ \w+ ?[=({;]"
    r"|(?:const|let|var) \w+ ?=|SELECT\b.{1,200}\bFROM\b)",
    re.MULTILINE,
)
_CODE_LINE_END = re.compile(r"(?:;|\) ?\{|\):|=>|\);)[ \t]*$", re.MULTILINE)
_CODE_LINES = 2
_CODE_PUNCTUATION = re.compile(r"[(;={<`]")
_CODE_WORDS = ("import ", "class ", "public ", "private ", "static ", "select ", "SELECT ")
"""Text that holds code has one of these or such punctuation in it; most prompts have neither."""


class RequestFeatures(msgspec.Struct):
    """The features of one request. Each is computed at most once, on first use.

    The shape of the body tells chat, completions, responses and embeddings apart.
    """

    load: Callable[[], Any]
    """Returns the decoded body; called at most once, may raise anything."""
    most_chars: float = math.inf
    """Upper bound of the characters of all text: the bytes of the body, if known."""
    least_chars: int = 0
    """Lower bound of them, for a body that is too large to be decoded."""
    route: str = CHAT
    """Name of the request's route."""
    is_unreadable: bool = False
    """Whether a feature was asked for and the body could not be decoded."""
    _body: Mapping[str, Any] | None = None
    _text: str | None = None
    _script: str | None = None
    _prompt_chars: int | None = None
    _json_mode: bool | None = None
    _code: bool | None = None
    _modality: str | None = None

    @classmethod
    def of(cls, body: object, route: str = CHAT) -> Self:
        """Make the features of a body that is decoded already."""
        return cls(lambda: body, route=route)

    @property
    def body(self) -> Mapping[str, Any]:
        """The decoded body; empty if it is no JSON object, or cannot be decoded."""
        if self._body is None:
            self._body = self._load_object()
        return self._body

    def _load_object(self) -> Mapping[str, Any]:
        try:
            body = self.load()
        except Exception:  # noqa: BLE001 - a body that cannot be decoded has no features
            self.is_unreadable = True
            return {}
        if not isinstance(body, dict):
            self.is_unreadable = True
            return {}
        return body

    @property
    def json_mode(self) -> bool:
        """Whether the answer has to follow a format other than free text."""
        if self._json_mode is None:
            self._json_mode = _asks_for_json(self.body)
        return self._json_mode

    @property
    def tools(self) -> bool:
        """Whether tools are offered."""
        body = self.body
        if _is_plain_chat(body):
            return False
        return bool(body.get("tools") or body.get("functions"))

    @property
    def modality(self) -> str:
        """The modality of the prompt, one of `MODALITIES`; `unknown` if it cannot be read."""
        if self._modality is None:
            found = modality_of(self.route, self.body)
            self._modality = UNKNOWN if self.is_unreadable else found
        return self._modality

    @property
    def prompt_chars(self) -> int:
        """Characters of all prompt text; token ids hold none."""
        if self._prompt_chars is None:
            counted = sum(len(text) for text in _prompt_texts(self.body))
            self._prompt_chars = counted or self.least_chars
        return self._prompt_chars

    @property
    def text(self) -> str:
        """The last user text; its text parts joined by newlines."""
        if self._text is None:
            self._text = _last_user_text(self.body)
        return self._text

    @property
    def script(self) -> str:
        """The dominant script of the last user text, `none` if it holds no letter."""
        if self._script is None:
            self._script = dominant_script(self.text[:SCRIPT_CHARS])
        return self._script

    @property
    def code(self) -> bool:
        """Whether the last user text holds program code."""
        if self._code is None:
            self._code = holds_code(self.text[:CODE_CHARS])
        return self._code


def holds_code(text: str) -> bool:
    """Whether a text holds program code.

    Code is a fenced block, a declaration, or two lines that end as only code does. JSON is none.
    """
    if not _CODE_PUNCTUATION.search(text):
        for word in _CODE_WORDS:
            if word in text:
                break
        else:
            return False
    if "```" in text or _DECLARATION.search(text):
        return True
    ends = _CODE_LINE_END.finditer(text)
    return sum(1 for _ in zip(range(_CODE_LINES), ends, strict=False)) == _CODE_LINES


def _is_plain_chat(body: Mapping[str, Any]) -> bool:
    """Whether a body, absent fields left out, is that of a chat without special wishes."""
    return len(body) == 1 and "messages" in body


def _asks_for_json(body: Mapping[str, Any]) -> bool:
    if _is_plain_chat(body):
        return False
    formats = [body.get("response_format")]
    text = body.get("text")
    if isinstance(text, dict):
        formats.append(text.get("format"))
    for wanted in formats:
        if isinstance(wanted, dict) and wanted.get("type", "text") != "text":
            return True
    for name in _GUIDES:  # noqa: SIM110 - on the hot path, and most bodies have none
        if body.get(name):
            return True
    return False


def _prompt_texts(body: Mapping[str, Any]) -> list[str]:
    texts: list[str] = []
    for turn in _turns(body):
        texts.extend(_texts(turn.get("content")) if isinstance(turn, dict) else _texts(turn))
    texts.extend(_texts(body.get("instructions")))
    texts.extend(_texts(body.get("prompt")))
    return texts


def _last_user_text(body: Mapping[str, Any]) -> str:
    for turn in reversed(_turns(body)):
        if isinstance(turn, str):
            return turn
        if isinstance(turn, dict) and turn.get("role") == "user":
            content = turn.get("content")
            return content if isinstance(content, str) else "\n".join(_texts(content))
    prompts = _texts(body.get("prompt"))
    return prompts[-1] if prompts else ""


def _turns(body: Mapping[str, Any]) -> list[Any]:
    turns = body.get("messages")
    if isinstance(turns, list):
        return turns
    turns = body.get("input")
    if isinstance(turns, list):
        return turns
    return [turns] if isinstance(turns, str) else []


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
    return texts
