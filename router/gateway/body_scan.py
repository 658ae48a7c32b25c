"""Reads the top level of a request body in steps, none of which holds up the event loop. Pure.

`penumbra.router.gateway.body_peek` decodes a small body at once. A large one, and one that may
repeat a field, is scanned here: the same bodies are accepted, and the same fields found. Nothing is
decoded. The work of a step is counted in units of about 25 ns on a slow machine; a step ends soon
after its units are used up.

Reading order: BodyScan.step, BodyScan._scan, BodyScan._item; `penumbra.router.gateway.body_tokens`.
"""

import codecs
from collections.abc import Callable

import msgspec

from penumbra.router.errors import BadRequest
from penumbra.router.gateway import body_grammar as grammar
from penumbra.router.gateway import body_tokens
from penumbra.router.gateway.body_tokens import (
    PLAIN_BYTES_PER_UNIT,
    QUOTE,
    SHORTEST_REACH_BYTES,
    TOKEN_UNITS,
    BodyTokens,
    Steps,
    invalid_json,
)

STEP_UNITS = 100_000
"""Units of work of one step: 2.5 ms."""
_CHECKED_BYTES = 256 * 1024
"""Bytes whose encoding is checked at once."""
_DEEPEST = 900
"""Levels of nesting that are read; the decoder of small bodies gives up not much later."""
_MOST_NAMES = 30_000
"""Fields of the top level, which are looked at one by one: more than a small body can have."""
_OPENING = _BRACE, _BRACKET = tuple(b"{[")
_END_BRACE, _END_BRACKET = b"}]"
_CLOSERS = bytes.maketrans(b"{[", b"}]")
_BLANKS = b" \t\r\n"
_COMMA, _COLON = b",:"
_decode_name = msgspec.json.Decoder(str).decode


class Field(msgspec.Struct):
    """One field of the top level: where its value lies in the body."""

    name: str
    begin: int
    end: int = 0
    values: int = 0
    """Values that it holds, itself included."""


class BodyScan(BodyTokens):
    """The scan of one body.

    Args:
        body: The body.
        wanted: Names of the fields that are looked for.
        found: Called with each such field when its value has been read.
    """

    def __init__(self, body: bytes, wanted: frozenset[str], found: Callable[[Field], None]) -> None:
        super().__init__(body)
        self.fields: dict[str, Field] = {}
        """Name -> the last field of this name; complete when the scan is over."""
        self.repeated: set[str] = set()
        """Wanted names that the top level has more than once."""
        self._wanted = wanted
        self._found = found
        self._closers = bytearray()
        """The brackets that will close what is open, the innermost last."""
        self._may_close = False
        self._names = 0
        self._field: Field | None = None
        """The wanted field whose value is being read."""
        self._work = self._scan()

    def step(self) -> bool:
        """Go on for one step; return whether the scan is over.

        Raises:
            BadRequest: The body is no JSON object.
        """
        self._left = STEP_UNITS
        return next(self._work, True) is True

    def close(self) -> None:
        """End a scan that is not over; else it would hold itself and its body."""
        self._work.close()

    def _scan(self) -> Steps:
        yield from self._check_encoding()
        while self._skip_blank():
            yield
        if self._char() != _BRACE:
            raise self._invalid("wanted an object")
        self._closers += b"}"
        self._at += 1
        self._may_close = True
        while self._closers:
            if self._left < 0:
                yield
            yield from self._item()
        while self._skip_blank():
            yield
        if self._at < len(self._body):
            raise self._invalid("wanted nothing behind the object")

    def _check_encoding(self) -> Steps:
        body = self._body
        if body.isascii():
            return
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for begin in range(0, len(body), _CHECKED_BYTES):
                piece = body[begin : begin + _CHECKED_BYTES]
                decoder.decode(piece, final=begin + len(piece) == len(body))
                self._left -= len(piece) // PLAIN_BYTES_PER_UNIT
                if self._left < 0:
                    yield
        except UnicodeDecodeError as error:
            raise invalid_json(f"it is not UTF-8: {error.reason}") from error

    def _item(self) -> Steps:
        """Read items of what is open: up to one that is opened itself, or past one that ends."""
        if len(self._closers) > 1:  # the names of the top level are looked at one by one
            self._skip_items()
        while self._skip_blank():
            yield
        if self._may_close and self._char() == self._closers[-1]:
            self._close()
        else:
            if self._closers[-1] == _END_BRACE:
                yield from self._name()
            if not self._skip_value():
                yield from self._value()
            if self._may_close:  # it has just been opened
                return
        yield from self._after_value()

    def _name(self) -> Steps:
        begin = self._at
        if self._char() != QUOTE:
            raise self._invalid("wanted a name in quotes")
        if len(self._closers) > 1 and self._skip(grammar.NAME):
            return
        yield from self._string()
        end = self._at
        while self._skip_blank():
            yield
        if self._char() != _COLON:
            raise self._invalid("wanted a colon")
        self._at += 1
        while self._skip_blank():
            yield
        if len(self._closers) == 1:
            self._begin_field(begin, end)

    def _value(self) -> Steps:
        """Read a value that is long, or open one of many levels."""
        while self._char() in _OPENING:
            self._open_many()
            if self._may_close:  # an item or its end comes next
                return
            while self._skip_blank():
                yield
            if self._skip_value():
                return
        self._may_close = False
        self._count_values(self._at)
        if self._char() == QUOTE:
            yield from self._string()
        elif literal := grammar.LITERAL.match(self._body, self._at):
            self._at = literal.end()
        else:
            yield from self._number()

    def _after_value(self) -> Steps:
        """Go on to the next item: past a comma, and out of all that ends before it."""
        while self._closers:
            if len(self._closers) == 1 and self._field is not None:
                self._end_field(self._field)
            while self._skip_blank():
                yield
            char = self._char()
            if char == _COMMA:
                self._at += 1
                self._may_close = False
                return
            if char != self._closers[-1]:
                raise self._invalid("wanted a comma or the end of what is open")
            self._close()
            self._close_many()
            if self._left < 0:
                yield

    def _begin_field(self, begin: int, end: int) -> None:
        raw = self._body[begin:end]
        if b"\\" in raw:
            try:
                name = _decode_name(raw)
            except msgspec.DecodeError as error:
                raise invalid_json(str(error)) from error
        else:
            name = raw[1:-1].decode()
        if name in self._wanted:
            if name in self.fields:
                self.repeated.add(name)
            self._field = self.fields[name] = Field(name, self._at)
        self._names += 1
        self._left -= 3 * TOKEN_UNITS
        if self._names > _MOST_NAMES:
            raise BadRequest(f"the body has more than {_MOST_NAMES} fields")

    def _end_field(self, field: Field) -> None:
        field.end = self._at
        self._field = None
        self._found(field)

    def _open_many(self) -> None:
        """Open what opens here, and those that it begins with, up to the value of a member."""
        begin = self._at
        opened = grammar.OPENINGS.match(self._body, begin, begin + 4 * SHORTEST_REACH_BYTES)
        self._at = opened.end() if opened else begin + 1
        self._left -= TOKEN_UNITS + self._at - begin
        marks = grammar.STRING.sub(b"", self._body[begin : self._at]).translate(None, _BLANKS)
        self._closers += marks.translate(_CLOSERS, b":")
        if len(self._closers) > _DEEPEST:
            raise self._invalid("it is nested too deeply")
        self._may_close = not marks.endswith(b":")
        if self._field is not None:
            self._field.values += len(marks)

    def _close_many(self) -> None:
        """Close all levels that end here one behind the other, down to the top level."""
        begin = self._at
        closed = grammar.CLOSINGS.match(self._body, begin, begin + SHORTEST_REACH_BYTES)
        end = closed.end() if closed else begin
        brackets = self._body[begin:end].translate(None, _BLANKS)
        if 1 < len(brackets) < len(self._closers):
            if self._closers[: -len(brackets) - 1 : -1] != brackets:
                raise self._invalid("wanted other brackets")
            del self._closers[-len(brackets) :]
            self._at = end
            self._left -= TOKEN_UNITS

    def _close(self) -> None:
        self._closers.pop()
        self._at += 1
        self._left -= TOKEN_UNITS

    def _skip_items(self) -> None:
        """Skip items that are within reach as a whole, each with its comma."""
        is_array = self._closers[-1] == _END_BRACKET
        begin = self._at
        if self._skip(grammar.ARRAY_ITEMS if is_array else grammar.OBJECT_ITEMS, ends_whole=True):
            self._may_close = False
            self._count_values(begin)
        # As far as the last look went, so that looks in vain cost no more than others.
        is_worth_it = self._at - begin > self._reach // 2
        self._reach = (
            min(2 * self._reach, body_tokens.STRETCH_BYTES) if is_worth_it else SHORTEST_REACH_BYTES
        )

    def _skip_value(self) -> bool:
        """Skip a value if it is within reach as a whole."""
        begin = self._at
        if not self._skip(grammar.VALUE):
            return False
        self._may_close = False
        self._count_values(begin)
        return True

    def _count_values(self, begin: int) -> None:
        if self._field is not None:
            marks = grammar.STRING.sub(b"", self._body[begin : self._at])
            self._field.values += marks.count(b",") + marks.count(b"[") + marks.count(b"{") + 1
