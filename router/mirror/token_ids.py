r"""Takes arrays of token ids out of an engine's bytes, without reading any JSON. Pure.

What vLLM (0.32) adds to an answer whose request asks for token ids is undone by two replacements:

- every array of a key `"token_ids"` or `"prompt_token_ids"` becomes `null`, whatever blanks and
  line ends stand between key, colon and array, or in the array,
- an event with an empty delta, no logprobs, no finish reason and an array of token ids is removed.

Why bytes are enough: a quote *inside* a JSON string is written `\"`, so it follows a backslash; a
quote that *ends* a string is followed by `,`, `:`, `}`, `]` or a blank, never by a letter. So a
quote that follows no backslash and is followed by a letter opens a string. What follows here is
that whole string, its end, a colon and an array: a key and a value of the engine's own. The same
holds for an event's delta. Text, tool arguments and log-probability tokens are strings, so nothing
that a model or a user writes can look like it (a Hypothesis test tries).

vLLM writes JSON without blanks. That form is found by comparing bytes; a regular expression is
asked only about a key that is followed by neither `:[` nor `:n`.

Reading order: strip, possible_opening.
"""

import itertools
import re

_MARK = b'token_ids"'
_KEYS = frozenset({b',"', b'{"'})
"""Bytes before `_MARK` where the key is short and no blank stands before it."""
_PROMPT_KEY = b'"prompt_'
_OPEN_KEYS = (b'"token_ids', b'"prompt_token_ids')
_QUOTE, _BACKSLASH = b'"\\'
_LONGEST_OPENING = 1024
"""Bytes from a key to its array, blanks included; one with more of them is not looked for in
pieces."""

# Of a multi-line event each line begins with `data:`, which is a blank to the JSON in it.
_BLANKS = rb"(?:[ \t\r\n]|(?<=[\r\n])data:)*"
_ARRAY = re.compile(_BLANKS + rb":" + _BLANKS + rb"\[")
_BEFORE_ARRAY = re.compile(_BLANKS + rb":?" + _BLANKS + rb"(?:d|da|dat|data)?")
_SHOWN = b'"},"logprobs":null,"finish_reason":null,"'
"""Bytes before `_MARK` in nearly every event: those of one with text and without blanks."""
_SILENT = re.compile(
    _BLANKS.join(
        [
            *(b'"delta"', b":", rb"\{", rb"\}", b",", b'"logprobs"', b":", b"null", b","),
            *(b'"finish_reason"', b":", b"null", b",", b'"'),
        ]
    )
)
_LONGEST_SILENT = 512
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")

EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
"""Last bytes of a whole event, whatever its line ends."""


def strip(data: bytes) -> bytes:
    """Restore whole events, or a whole JSON answer, to what the client gets without token ids."""
    parts: list[bytes] = []
    start = 0
    at = data.find(_MARK)
    while at >= 0:
        begin = _array_begin(data, at)
        if begin < 0:
            at = data.find(_MARK, at + 1)
            continue
        if _is_silent(data, at):
            events = (event for event in _events(data) if not _holds_silent(event))
            return b"".join(map(strip, events))
        end = data.find(b"]", begin)
        if end < 0:
            break
        parts += (data[start : begin - 1], b"null")
        start = end + 1
        at = data.find(_MARK, start)
    if not parts:
        return data
    parts.append(data[start:])
    return b"".join(parts)


def first_array(data: bytes) -> int:
    """Find the index after the bracket of the first array of token ids; -1 if there is none."""
    at = data.find(_MARK)
    while at >= 0:
        begin = _array_begin(data, at)
        if begin >= 0:
            return begin
        at = data.find(_MARK, at + 1)
    return -1


def possible_opening(data: bytes) -> int:
    """Find the index of a key whose array may follow after the end; the length if there is none."""
    last = data.rfind(b'"')
    if last < 0:
        return len(data)
    start = data.rfind(b'"', 0, last)
    if start >= 0 and data[start:last] in _OPEN_KEYS:
        may_go_on = _BEFORE_ARRAY.fullmatch(data, last + 1) is not None
        return start if may_go_on and len(data) - start <= _LONGEST_OPENING else len(data)
    tail = data[last:]
    return last if any(key.startswith(tail) for key in _OPEN_KEYS) else len(data)


def _array_begin(data: bytes, at: int) -> int:
    """Find the index after the bracket of the array of the key at `at`; -1 if it has none.

    It compares bytes: a sixth of a regular expression's time.
    """
    between = data[at + 10 : at + 12]
    if between == b":[":
        begin = at + 12
    else:
        found = None if between == b":n" else _ARRAY.match(data, at + 10)
        if found is None:
            return -1
        begin = found.end()
    if data[at - 2 : at] in _KEYS:
        return begin
    quote = at - 8 if data[at - 8 : at] == _PROMPT_KEY else at - 1
    if quote < 0 or data[quote] != _QUOTE or (quote > 0 and data[quote - 1] == _BACKSLASH):
        return -1
    return begin


def _is_silent(data: bytes, at: int) -> bool:
    """Whether the event that has a mark at `at` shows nothing but token ids."""
    if data.startswith(_SHOWN, at - len(_SHOWN)):
        return False
    delta = data.rfind(b'"delta"', max(0, at - _LONGEST_SILENT), at)
    found = _SILENT.match(data, delta, at) if delta >= 0 else None
    return found is not None and found.end() == at


def _holds_silent(event: bytes) -> bool:
    at = event.find(_MARK)
    while at >= 0:
        if _array_begin(event, at) >= 0 and _is_silent(event, at):
            return True
        at = event.find(_MARK, at + 1)
    return False


def _events(data: bytes) -> list[bytes]:
    edges = [0, *(found.end() for found in _EVENT_END.finditer(data)), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]
