r"""Regular expressions of strangers, searched in bounded time. Pure.

Python's engine backtracks, so a short expression may take forever on a short text. How many ways
there are to try is bounded from above by reading the expression: a repeat of something that can
match in one way only has as many ways as it has lengths, ways in a row multiply, alternatives add
up, and ways within a repeat multiply with each round. If that is too many, nothing is searched.

The bound is crude: `^\S+@\S+\.\S+$` is searched in some fifty characters, `(a+)+$` in a handful,
and expressions without nested repeats in texts of any sensible length.
"""

import functools
import math
import re
import warnings

LONGEST_PATTERN_CHARS = 512
MOST_STEPS = 5_000_000
"""Of the bound; at some 10^8 a second they are a twentieth of a second."""

_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d*)(,?)(\d*)\})[?+]?")
_GROUP = re.compile(r"\((?:\?(?:[:=!]|<[=!]|P<\w+>))?")
_MOST_ROUNDS = 1000


class CostlyPattern(Exception):
    """The search might take too long, or the expression is none of Python's; it was not tried."""


def search(pattern: str, text: str) -> bool:
    """Whether an expression matches somewhere in a text.

    Raises:
        CostlyPattern: See there.
    """
    expression, has_one_start = _compile(pattern)
    steps = ways(pattern, len(text)) * (len(pattern) + len(text))
    if not has_one_start:
        steps *= len(text) + 1
    if steps > MOST_STEPS:
        raise CostlyPattern("too many ways to match")
    return expression.search(text) is not None


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
def ways(pattern: str, length: int) -> float:
    """An upper bound on the ways to match a valid expression from one position of a text.

    Args:
        pattern: What `re.compile` accepts.
        length: Characters of the text.

    Raises:
        CostlyPattern: It holds something that is not bounded here, as a reference back.
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

    def alternatives(self) -> float:
        total = self._sequence()
        while self._peek() == "|":
            self.position += 1
            total += self._sequence()
        return total

    def _sequence(self) -> float:
        total = 1.0
        while self._peek() not in ("", "|", ")"):
            total *= self._quantified(self._atom())
        return total

    def _peek(self) -> str:
        return self._pattern[self.position : self.position + 1]

    def _atom(self) -> float:
        """Ways of one character, class or group."""
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
        return 1.0

    def _group(self) -> float:
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

    def _quantified(self, ways_inside: float) -> float:
        found = _QUANTIFIER.match(self._pattern, self.position)
        # A brace that begins no quantifier is a character; counted as one it only adds ways.
        if found is None:
            return ways_inside
        self.position = found.end()
        least, most = self._rounds(found)
        if max(least, 0 if math.isinf(most) else most) > _MOST_ROUNDS:
            raise CostlyPattern("too many rounds")
        most = min(most, self._length)
        if ways_inside == 1.0:
            return max(1.0, most - least + 1)
        exponent = max(most, least) * math.log2(ways_inside)
        return math.inf if exponent > 64 else ways_inside ** max(most, least) * (most + 1)

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
