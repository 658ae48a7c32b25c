"""Detects fenced code that does not parse, in Python and JSON. Pure."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator

from penumbra.monitoring.signals.schemas import parse

LARGEST_BLOCK_CHARS = 32_768
"""A larger block is not looked at."""
DEEPEST_NESTING = 30
"""Nor one with brackets nested deeper: a parser's time may double with each level."""

_OPENING = re.compile(r"^[ ]{0,3}```[ \t]*(python|py|json)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_CLOSING = re.compile(r"^[ ]{0,3}```[ \t]*$", re.MULTILINE)
_NOT_A_MODULE = re.compile(r"^[ \t]*(?:>>>|[!%]\w|\.\.\.$)", re.MULTILINE)
"""A session, a notebook's commands, or a passage left out: no module, and not meant to be."""


def has_broken_block(text: str, *, is_finished: bool) -> bool:
    """Whether a fenced block that says Python or JSON does not parse.

    Args:
        text: The answer.
        is_finished: Whether it came to an end by itself. The last block of one that was cut need
            not have an end.
    """
    if "```" not in text:
        return False
    return any(
        not _parses(language, block)
        for language, block, is_closed in _blocks(text)
        if is_closed or is_finished
    )


def _blocks(text: str) -> Iterator[tuple[str, str, bool]]:
    position = 0
    while (opening := _OPENING.search(text, position)) is not None:
        closing = _CLOSING.search(text, opening.end())
        end = len(text) if closing is None else closing.start()
        yield opening[1].lower(), text[opening.end() : end], closing is not None
        if closing is None:
            return
        position = closing.end()


def _parses(language: str, block: str) -> bool:
    if len(block) > LARGEST_BLOCK_CHARS or _nesting(block) > DEEPEST_NESTING:
        return True
    if language == "json":
        return parse(block)[0]
    if _NOT_A_MODULE.search(block):
        return True
    try:
        with warnings.catch_warnings():
            # It may hold an invalid escape; that is no harm, and none of our warnings.
            warnings.simplefilter("ignore")
            ast.parse(textwrap.dedent(block))
    except SyntaxError:
        return False
    except (ValueError, MemoryError, RecursionError):
        # No text, or more than the parser can take: nothing is decided.
        return True
    return True


def _nesting(block: str) -> int:
    """The deepest nesting of brackets, those in strings included."""
    depth = deepest = 0
    for character in block:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest
