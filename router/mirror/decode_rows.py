r"""Takes log-probabilities of tokens out of an engine's bytes, without reading any JSON. Pure.

A request whose decoding is to be read asks for log-probabilities as well. vLLM (0.32) then writes
an object where it writes `null` otherwise, as the value of a choice's `"logprobs"`. That key's
object becomes `null` again, whatever blanks and line ends stand in between.

Why bytes are enough is said in `penumbra.router.mirror.token_ids`: a quote that follows no
backslash and is followed by a letter opens a string, and a string that is followed by a colon and a
brace is a key of the engine's own. Within the object strings are skipped as wholes, so brackets in
a token's text end nothing. The objects of chats are found by their last bytes, for a third of the
time: `"top_logprobs":[]}]}` is no string's content either, and as long as no other choice begins in
between, the first one ends the object.

Reading order: strip_rows, RowsStripper.
"""

import re

_KEY = b'"logprobs"'
_CHAT = b'{"content":[{"token":"'
_CHAT_END = b'"top_logprobs":[]}]}'
_NEXT = b',"finish_reason":'
"""Key that follows the object in each choice."""
_BACKSLASH = 0x5C
_MOST_UNENDED = 8
"""Objects without an end, after which no more are looked for: an engine writes none."""
_LONGEST_OPENING = 1024
"""Bytes from a key to its object, blanks included; one with more is not looked for in pieces."""

# Of a multi-line event each line begins with `data:`, which is a blank to the JSON in it.
_BLANKS = rb"(?:[ \t\r\n]|(?<=[\r\n])data:)*+"
_OPENING = re.compile(_BLANKS + rb":" + _BLANKS + rb"(?=\{)")
_BEFORE_OBJECT = re.compile(_BLANKS + rb":?+" + _BLANKS + rb"(?:d|da|dat|data)?+")
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_DEEPEST = 6
"""Levels of brackets in an object: those of a chat's alternatives, with their bytes."""


def _balanced(levels: int) -> bytes:
    within = rb'(?:[^"{}\[\]]|' + _STRING + rb")*+"
    for _ in range(levels - 1):
        within = rb'(?:[^"{}\[\]]++|' + _STRING + rb"|[{\[]" + within + rb"[}\]])*+"
    return rb"\{" + within + rb"\}"


_OBJECT = re.compile(_balanced(_DEEPEST), re.DOTALL)
_SPECIAL = re.compile(rb'["{}\[\]]')
_STRING_SPECIAL = re.compile(rb'["\\]')


def strip_rows(data: bytes) -> bytes:
    """Restore whole events, or a whole JSON answer, to those without log-probabilities."""
    at = data.find(_KEY)
    if at < 0:
        return data
    parts: list[bytes] = []
    start = unended = 0
    while at >= 0 and unended < _MOST_UNENDED:
        begin = _object_begin(data, at)
        end = _object_end(data, begin) if begin >= 0 else -1
        if end < 0:
            unended += begin >= 0
            at = data.find(_KEY, at + 1)
            continue
        parts += (data[start:begin], b"null")
        start = end
        at = data.find(_KEY, start)
    if not parts:
        return data
    parts.append(data[start:])
    return b"".join(parts)


def _object_begin(data: bytes, at: int) -> int:
    """Find the index of the brace of the key at `at`; -1 if it has none."""
    if at > 0 and data[at - 1] == _BACKSLASH:
        return -1
    begin = at + len(_KEY)
    if data.startswith(b":{", begin):
        return begin + 1
    if data.startswith(b":n", begin):
        return -1
    found = _OPENING.match(data, begin)
    return found.end() if found is not None else -1


def _object_end(data: bytes, begin: int) -> int:
    """Find the index after the object that begins at `begin`; -1 if it does not end."""
    if data.startswith(_CHAT, begin):
        end = data.find(_CHAT_END, begin)
        if end >= 0 and data.find(_NEXT, begin, end) < 0:
            return end + len(_CHAT_END)
    found = _OBJECT.match(data, begin)
    return found.end() if found is not None else -1


class RowsStripper:
    """Strips bytes that may end anywhere: of an answer too large to be buffered."""

    __slots__ = ("_carry", "_depth", "_is_escaped", "_is_in_string")

    def __init__(self) -> None:
        self._carry = b""
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    @property
    def is_within(self) -> bool:
        """Whether the last piece ended within an object, or where one may begin."""
        return bool(self._carry or self._depth)

    def feed(self, data: bytes) -> bytes:
        """Return a piece without log-probabilities; its end may be held back."""
        data = self._carry + data
        self._carry = b""
        parts: list[bytes] = []
        start = 0
        while start < len(data):
            if self._depth:
                start = self._skip(data, start)
                continue
            at = data.find(_KEY, start)
            while at >= 0 and (begin := _object_begin(data, at)) < 0:
                at = data.find(_KEY, at + 1)
            if at < 0:
                rest = data[start:]
                cut = _possible_opening(rest)
                parts.append(rest[:cut])
                self._carry = rest[cut:]
                break
            parts += (data[start:begin], b"null")
            self._depth = 1
            start = begin + 1
        return b"".join(parts)

    def rest(self) -> bytes:
        """Return the bytes held back because they could have been the beginning of an object."""
        rest, self._carry = self._carry, b""
        return rest

    def _skip(self, data: bytes, at: int) -> int:
        """Skip the object from `at`, or as much of it as there is; return where it ends."""
        if self._is_escaped:
            self._is_escaped = False
            at += 1
        while self._depth:
            found = (_STRING_SPECIAL if self._is_in_string else _SPECIAL).search(data, at)
            if found is None:
                return len(data)
            at = found.end()
            match found.group():
                case b'"':
                    self._is_in_string = not self._is_in_string
                case b"\\":
                    self._is_escaped = at == len(data)
                    at += 1
                case b"{" | b"[":
                    self._depth += 1
                case _:
                    self._depth -= 1
        return at


def _possible_opening(data: bytes) -> int:
    """Find the index of a key whose object may follow after the end; the length if none may."""
    at = data.rfind(_KEY)
    if at >= 0 and not (at > 0 and data[at - 1] == _BACKSLASH):
        may_go_on = _BEFORE_OBJECT.fullmatch(data, at + len(_KEY)) is not None
        if may_go_on and len(data) - at <= _LONGEST_OPENING:
            return at
    last = data.rfind(b'"')
    if last >= 0 and _KEY.startswith(data[last:]):
        return last
    return len(data)
