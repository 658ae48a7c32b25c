"""Takes the raw messages with token ids out of a Responses answer, without reading JSON. Pure.

vLLM (0.32) tells the token ids of a response in `input_messages` and `output_messages`: two arrays
in place of the `null` that stands there otherwise. The arrays hold texts with any characters, so
their end is found by counting brackets outside of strings.

Why bytes are enough: a quote *inside* a JSON string is written with a backslash before it, so the
name with its closing quote, a colon and a bracket is a key and a value. The keys of a response that
others than the engine choose are those of the request's own tools and schemas, which it repeats;
requests that hold such a name are not tapped (`penumbra.router.mirror.comparable`).

Reading order: MessagesStripper.feed, strip_messages.
"""

import re

_MARK = b'put_messages"'
_OPENING = re.compile(rb'"(?:in|out)put_messages"[ \t\r\n]*+:[ \t\r\n]*+(?=\[)')
_KEYS = (b'"input_messages"', b'"output_messages"')
_BEFORE_ARRAY = re.compile(rb'"(?:in|out)put_messages"[ \t\r\n]*+:?[ \t\r\n]*+')
_LONGEST_OPENING = 64
"""Bytes from a key to its array, blanks included; one with more of them is not looked for."""
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""The rest of a string, up to its closing quote or a backslash at the end of what is there."""
_BETWEEN = re.compile(rb'[^"\[\]]*+')
_QUOTE, _OPEN = b'"['


class MessagesStripper:
    """Strips one answer, which comes in pieces that may end anywhere."""

    __slots__ = ("_carry", "_depth", "_is_in_string")

    def __init__(self) -> None:
        self._carry = b""
        self._depth = 0
        """Brackets that are open in the array; 0 outside of one."""
        self._is_in_string = False

    def feed(self, data: bytes) -> bytes:
        """Return what the client gets of a piece; what may be the beginning of a key is kept."""
        if self._carry:
            data, self._carry = self._carry + data, b""
        if not self._depth and _MARK not in data:
            return self._without_opening(data)
        parts: list[bytes] = []
        at = 0
        while at < len(data):
            if self._depth:
                at = self._skip(data, at)
                continue
            found = _OPENING.search(data, at)
            if found is None:
                parts.append(self._without_opening(data[at:]))
                break
            parts += (data[at : found.end()], b"null")
            at, self._depth = found.end() + 1, 1
        return b"".join(parts)

    def rest(self) -> bytes:
        """Return the bytes that were kept because they could have been the beginning of a key."""
        rest, self._carry = self._carry, b""
        return b"" if self._depth else rest

    def _without_opening(self, data: bytes) -> bytes:
        cut = _possible_opening(data)
        self._carry = data[cut:]
        return data[:cut]

    def _skip(self, data: bytes, at: int) -> int:
        """Find the index behind the array, or the length where it goes on."""
        while at < len(data):
            if self._is_in_string:
                found = _INSIDE.match(data, at)
                at = len(data) if found is None else found.end()
                if at == len(data):
                    break
                if data[at] != _QUOTE:  # a backslash, and what follows it is still to come
                    self._carry = data[at:]
                    return len(data)
                self._is_in_string = False
                at += 1
                continue
            between = _BETWEEN.match(data, at)
            at = len(data) if between is None else between.end()
            if at == len(data):
                break
            mark = data[at]
            at += 1
            if mark == _QUOTE:
                self._is_in_string = True
                continue
            self._depth += 1 if mark == _OPEN else -1
            if not self._depth:
                return at
        return at


def strip_messages(data: bytes) -> bytes:
    """Restore whole events, or a whole JSON answer, to what the client gets without token ids."""
    stripper = MessagesStripper()
    return stripper.feed(data) + stripper.rest()


def _possible_opening(data: bytes) -> int:
    """Find the index of a key whose array may follow after the end; the length if there is none."""
    first = max(0, len(data) - _LONGEST_OPENING)
    last = data.rfind(b'"', first)
    if last < 0:
        return len(data)
    start = data.rfind(b'"', first, last)
    if start >= 0 and data.startswith(_KEYS, start):
        return start if _BEFORE_ARRAY.fullmatch(data, start) is not None else len(data)
    tail = data[last:]
    return last if any(key.startswith(tail) for key in _KEYS) else len(data)
