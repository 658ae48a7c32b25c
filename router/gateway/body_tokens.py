"""Reads the tokens of a request body: strings, numbers and blanks, however long they are. Pure.

`BodyScan` (`penumbra.router.gateway.body_scan`) is the only subclass and knows what is nested in
what. The work is counted in units of about 25 ns on a slow machine.
"""

import re
from collections.abc import Generator

from penumbra.router.errors import BadRequest
from penumbra.router.gateway import body_grammar as grammar

STRETCH_BYTES = 32 * 1024
"""Bytes that one expression reads at most; each costs a unit at most."""
PLAIN_BYTES_PER_UNIT = 4
"""Bytes of text or white space that cost one unit."""
SHORTEST_REACH_BYTES = 256
"""Bytes within which a whole value is looked for, until many are found there."""
TOKEN_UNITS = 40
"""Units of one token that is looked at by itself."""
_LONGEST_CUT_BYTES = 2
"""Bytes of a number that end it where it is cut: those of `e+`, whose digit is missing."""
QUOTE = 0x22
_DOT = 0x2E
_EXPONENTS = tuple(b"eE")
_END_OF_BODY = -1

Steps = Generator[None, None, None]
"""A part of the work. Each `yield` is a place at which a step may end."""


class BodyTokens:
    """A body and the place up to which it is read.

    Args:
        body: The body.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._left = 0
        self._reach = SHORTEST_REACH_BYTES

    def _skip_blank(self) -> bool:
        """Skip white space; True if there may be more, to be skipped after a `yield`."""
        begin = self._at
        self._at = grammar.BLANK.match(self._body, begin, begin + STRETCH_BYTES).end()  # type: ignore[union-attr]
        self._left -= (self._at - begin) // PLAIN_BYTES_PER_UNIT
        return self._at == begin + STRETCH_BYTES

    def _skip(self, pattern: re.Pattern[bytes], *, ends_whole: bool = False) -> bool:
        """Skip what matches, unless it may be cut at the end of the reach; return whether."""
        begin, limit = self._at, self._at + self._reach
        self._left -= TOKEN_UNITS
        match = pattern.match(self._body, begin, limit)
        if match is None or match.end() == begin:
            return False
        if not ends_whole and match.end() >= limit - _LONGEST_CUT_BYTES:
            return False
        self._at = match.end()
        self._left -= self._at - begin
        return True

    def _string(self) -> Steps:
        body, at = self._body, self._at
        whole = grammar.STRING.match(body, at, at + STRETCH_BYTES)
        if whole is not None:
            self._at = whole.end()
            self._left -= (self._at - at) // PLAIN_BYTES_PER_UNIT
            return
        at += 1
        while (end := grammar.STRING_CHARS.match(body, at, at + STRETCH_BYTES).end()) > at:  # type: ignore[union-attr]
            self._left -= (end - at) // PLAIN_BYTES_PER_UNIT + body.count(b"\\", at, end)
            at = end
            if self._left < 0:
                yield
        self._at = at
        if self._char() != QUOTE:
            raise self._invalid("wanted the end of a string")
        self._at += 1

    def _number(self) -> Steps:
        yield from self._digits(grammar.INTEGER)
        if self._char() == _DOT:
            yield from self._digits(grammar.FRACTION)
        if self._char() in _EXPONENTS:
            yield from self._digits(grammar.EXPONENT)

    def _digits(self, beginning: re.Pattern[bytes]) -> Steps:
        """Read what matches, and the digits behind it if it fills a stretch."""
        body, limit = self._body, self._at + STRETCH_BYTES
        match = beginning.match(body, self._at, limit)
        if match is None:
            raise self._invalid("wanted a value")
        end = match.end()
        while end == limit:
            self._left -= STRETCH_BYTES // PLAIN_BYTES_PER_UNIT
            if self._left < 0:
                yield
            limit = end + STRETCH_BYTES
            end = grammar.DIGITS.match(body, end, limit).end()  # type: ignore[union-attr]
        self._at = end

    def _char(self) -> int:
        return self._body[self._at] if self._at < len(self._body) else _END_OF_BODY

    def _invalid(self, wanted: str) -> BadRequest:
        return invalid_json(f"{wanted} (byte {self._at})")


def invalid_json(problem: str) -> BadRequest:
    """The error of a body that is no JSON object."""
    return BadRequest(f"the body is not a valid JSON object: {problem}", code="invalid_json")
