r"""Searches clients' regular expressions in bounded time. Pure.

Python's engine backtracks, so a short expression may take forever on a short text. Reading the
expression gives an upper bound on the number of ways to match: a repeat of something that can match
in one way only has as many ways as it has lengths, ways in a row multiply, alternatives add up, and
ways within a repeat multiply with each round. If ways times the work of one are too many, nothing
is searched.

The bound is crude: `^\S+@\S+\.\S+$` is searched in some fifty characters, `(a+)+$` in a handful,
and expressions without nested repeats in texts of any sensible length.
"""

import functools
import math
import re
import warnings
from typing import NamedTuple

LONGEST_PATTERN_CHARS = 512
MOST_STEPS = 20_000_000
"""Limit of the bound. The work that is really done is far below it, under some 50 ms."""

_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d*)(,?)(\d*)\})[?+]?")
_GROUP = re.compile(r"\((?:\?(?:[:=!]|<[=!]|P<\w+>))?")
_LARGEST_EXPONENT = 64


class Cost(NamedTuple):
    """Upper bounds on matching from one position of a text."""

    ways: float
    work: float
    """Steps of one way."""


class CostlyPattern(Exception):
    """The search might take too long, or the expression is none of Python's; it was not tried."""


def search(pattern: str, text: str) -> bool:
    """Whether an expression matches somewhere in a text.

    Raises:
        CostlyPattern: The search could exceed `MOST_STEPS`, or Python cannot read the expression.
    """
    expression, has_one_start = _compile(pattern)
    cost = cost_of(pattern, len(text))
    starts = 1 if has_one_start else len(text) + 1
    if cost.ways * cost.work * starts > MOST_STEPS:
        raise CostlyPattern("too many ways to match")
    try:
        return expression.search(text) is not None
    except (SystemError, MemoryError) as error:
        # The engine has bugs of its own in rarely used corners.
        raise CostlyPattern("not understood") from error


@functools.lru_cache(maxsize=256)
def _compile(pattern: str) -> tuple[re.Pattern[str], bool]:
    if len(pattern) > LONGEST_PATTERN_CHARS:
        raise CostlyPattern("too long")
    try:
        with warnings.catch_warnings():
            # About what a later Python would read otherwise; none of our warnings.
            warnings.simplefilter("ignore")
            expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise CostlyPattern("not understood") from error
    return expression, pattern.startswith("^") and "|" not in pattern


@functools.lru_cache(maxsize=1024)
def cost_of(pattern: str, length: int) -> Cost:
    """An upper bound on the cost of matching a valid expression from one position of a text.

    Args:
        pattern: An expression that `re.compile` accepts.
        length: Characters of the text.

    Raises:
        CostlyPattern: It holds something that has no bound here, such as a back-reference.
    """
    reader = _Reader(pattern, length)
    found = reader.alternatives()
    if reader.position < len(pattern):
        raise CostlyPattern("not understood")
    return found


class _Reader:
    """Reads an expression once from left to right, counting."""

    def __init__(self, pattern: str, length: int) -> None:
        self._pattern = pattern
        self._length = length
        self.position = 0

    def alternatives(self) -> Cost:
        ways, work = self._sequence()
        while self._peek() == "|":
            self.position += 1
            another = self._sequence()
            ways, work = ways + another.ways, work + another.work
        return Cost(ways, work)

    def _sequence(self) -> Cost:
        ways = work = 1.0
        while self._peek() not in ("", "|", ")"):
            item = self._quantified(self._atom())
            ways, work = ways * item.ways, work + item.work
        return Cost(ways, work)

    def _peek(self) -> str:
        return self._pattern[self.position : self.position + 1]

    def _atom(self) -> Cost:
        """One character, class or group."""
        character = self._peek()
        if character == "(":
            return self._group()
        if character == "[":
            self._skip_class()
        elif character == "\\":
            if self._pattern[self.position + 1] in "123456789":
                raise CostlyPattern("a reference back")
            self.position += 2
        else:
            self.position += 1
        return Cost(1.0, 1.0)

    def _group(self) -> Cost:
        opening = _GROUP.match(self._pattern, self.position)
        if opening is None or self._pattern.startswith("?", opening.end()):
            raise CostlyPattern("a group of an unusual kind")
        self.position = opening.end()
        inside = self.alternatives()
        self.position += 1
        return inside

    def _skip_class(self) -> None:
        position = self.position + 1
        if self._pattern.startswith("^", position):
            position += 1
        position += 1  # A bracket that comes first is a character of the class.
        if self._pattern[position - 1] == "\\":
            position += 1
        while self._pattern[position] != "]":
            position += 2 if self._pattern[position] == "\\" else 1
        self.position = position + 1

    def _quantified(self, inside: Cost) -> Cost:
        found = _QUANTIFIER.match(self._pattern, self.position)
        # A brace that begins no quantifier is a character; counted as one it only adds ways.
        if found is None:
            return inside
        self.position = found.end()
        least, most = self._rounds(found)
        # A round that matches nothing is not repeated beyond the least number.
        rounds = max(least, min(most, self._length), 1)
        work = inside.work * rounds
        if inside.ways == 1.0:
            return Cost(max(1.0, rounds - least + 1), work)
        if rounds * math.log2(inside.ways) > _LARGEST_EXPONENT:
            return Cost(math.inf, work)
        return Cost(inside.ways**rounds * (rounds + 1), work)

    def _rounds(self, found: re.Match[str]) -> tuple[float, float]:
        kind = found[0][0]
        if kind in "*+":
            return (0 if kind == "*" else 1), math.inf
        if kind == "?":
            return 0, 1
        least = int(found[1] or 0)
        if not found[2]:
            return least, least
        return least, int(found[3]) if found[3] else math.inf
