"""Detects texts that end in a loop. Pure.

A text loops if its end is one unit that repeats up to the very last character. Lists, tables
and code repeat their shape but not their letters, and what does repeat in them is not the end.
"""

TAIL_CHARS = 4096
"""How much of the end is looked at."""

_UNIT_OF_A_FEW_CHARS = 4
_LEAST_TIMES = 4
_LEAST_TIMES_OF_A_FEW = 8
_LEAST_CHARS = 48
_LEAST_CHARS_UNFINISHED = 32
_LEAST_CHARS_OF_RULES = 240
"""Of a line drawn with characters: as wide as two terminals."""
_RULES = frozenset("-=_*#~.+|/\\ \t\r\n─━═│┄┈·•…")


def ends_in_loop(text: str, *, is_finished: bool) -> bool:
    """Whether a text ends in a loop, in time linear in what is looked at.

    Args:
        text: The answer.
        is_finished: Whether it came to an end by itself: one that was cut is suspected sooner.
    """
    tail = text.rstrip()[-TAIL_CHARS:][::-1]
    least = _LEAST_CHARS if is_finished else _LEAST_CHARS_UNFINISHED
    if len(tail) < least:
        return False
    borders = _borders(tail)
    for length in range(least, len(tail) + 1):
        period = length - borders[length]
        if 2 * period <= length and _is_loop(tail[:period], length):
            return True
    return False


def _is_loop(unit: str, length: int) -> bool:
    times = length // len(unit)
    if len(unit) < _UNIT_OF_A_FEW_CHARS:
        if times < _LEAST_TIMES_OF_A_FEW:
            return False
    elif times < _LEAST_TIMES:
        return False
    return length >= _LEAST_CHARS_OF_RULES or not _RULES.issuperset(unit)


def _borders(text: str) -> list[int]:
    """For each length, the longest proper prefix of that prefix of `text` that also ends it.

    The failure function of Knuth, Morris and Pratt; a prefix's length less its border is the
    prefix's smallest period.
    """
    borders = [0] * (len(text) + 1)
    border = 0
    for i in range(1, len(text)):
        while border and text[i] != text[border]:
            border = borders[border]
        if text[i] == text[border]:
            border += 1
        borders[i + 1] = border
    return borders
