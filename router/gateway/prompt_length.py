"""A lower bound of the length of a prompt that is too large to be decoded, found in steps. Pure.

The strings that may be text of the prompt are measured where they lie in the body: the values of
`content`, `text`, `prompt`, `input` and `instructions`, and the items of arrays. An image in a
message is the value of another field and counts nothing.
"""

from penumbra.router.gateway import body_grammar as grammar
from penumbra.router.gateway.body_scan import STEP_UNITS, Field
from penumbra.router.gateway.body_tokens import PLAIN_BYTES_PER_UNIT, STRETCH_BYTES, Steps

_LONGEST_CHAR_BYTES = 4
"""Bytes of one character in UTF-8."""
_NAME_BYTES = 64
"""Bytes before a string in which the name of its field is looked for."""


class PromptLength:
    """The count of the characters of one field.

    Args:
        body: A body in valid JSON.
        field: Where the value of the field lies in it.
    """

    def __init__(self, body: bytes, field: Field) -> None:
        self._body = body
        self._is_ascii = body.isascii()
        self._at, self._end = field.begin, field.end
        self._left = 0
        self._plain_bytes = 0
        self._work = self._measure()

    def step(self) -> bool:
        """Go on for one step; return whether all is measured."""
        self._left = STEP_UNITS
        return next(self._work, True) is True

    def close(self) -> None:
        """End a measurement that is not over; else it would hold itself and the body."""
        self._work.close()

    @property
    def least_chars(self) -> int:
        """Characters of the field's text: at least so many have been found."""
        plain = max(0, self._plain_bytes)
        return plain if self._is_ascii else plain // _LONGEST_CHAR_BYTES

    def _measure(self) -> Steps:
        body = self._body
        if body.startswith(b'"', self._at):  # the field is one string
            yield from self._long_string(is_text=True)
        while self._at < self._end:
            begin, limit = self._at, min(self._at + STRETCH_BYTES, self._end)
            self._at = grammar.ALL_STRINGS.match(body, begin, limit).end()  # type: ignore[union-attr]
            self._left -= 2 * (limit - begin)
            if self._at > begin:
                self._count(b"".join(grammar.TEXTS.findall(body, begin, limit)))
            elif (quote := body.find(b'"', begin, limit)) < 0:
                self._at = limit
            else:
                before = body[max(0, quote - _NAME_BYTES) : quote]
                self._at = quote
                yield from self._long_string(is_text=grammar.BEFORE_TEXT.search(before) is not None)
            if self._left < 0:
                yield

    def _long_string(self, *, is_text: bool) -> Steps:
        body, at = self._body, self._at + 1
        while (end := grammar.STRING_CHARS.match(body, at, at + STRETCH_BYTES).end()) > at:  # type: ignore[union-attr]
            if is_text:
                self._count(body[at:end])
            self._left -= (end - at) // PLAIN_BYTES_PER_UNIT + body.count(b"\\", at, end)
            at = end
            if self._left < 0:
                yield
        self._at = at + 1

    def _count(self, text: bytes) -> None:
        # `\\n` is one character, `\\u00e4` as well, and so are two halves of a pair together.
        escapes = text.count(b"\\") + 4 * text.count(b"\\u") + text.count(b"\\ud")
        self._plain_bytes += len(text) - escapes
