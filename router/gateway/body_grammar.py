"""The grammar of JSON as regular expressions that read a bounded stretch of a body. Pure.

Every repetition is possessive, so that no input makes an expression go back: the time of a match
grows with the bytes that it is given and with nothing else. `end` arguments bound these bytes.
The grammar is msgspec's, which decodes small bodies: RFC 8259, without half surrogate pairs.
"""

import re

_BLANK = rb"[ \t\r\n]*+"
_CHARS = rb'[^"\\\x00-\x1f]'
_UNIT = rb"u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})"
_PAIR = rb"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = rb'\\(?:["\\/bfnrt]|' + _UNIT + rb"|" + _PAIR + rb")"
_STRING = rb'"' + _CHARS + rb"*+(?:" + _ESCAPE + _CHARS + rb'*+)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+"
_NAME = _STRING + _BLANK + rb":" + _BLANK


def _value(levels: int) -> bytes:
    """A value in which at most so many levels are nested, as an expression."""
    leaf = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null"
    if not levels:
        return leaf + rb")"
    inner = _value(levels - 1) + _BLANK
    items = rb"(?:" + inner + rb"(?:," + _BLANK + rb"(?!\])|(?=\])))*+"
    members = rb"(?:" + _NAME + inner + rb"(?:," + _BLANK + rb"(?!\})|(?=\})))*+"
    array, mapping = rb"\[" + _BLANK + items + rb"\]", rb"\{" + _BLANK + members + rb"\}"
    return leaf + rb"|" + array + rb"|" + mapping + rb")"


_LEVELS = 3

BLANK = re.compile(_BLANK)
"""White space, perhaps none."""
STRING = re.compile(_STRING)
"""A whole string, its quotes included."""
STRING_CHARS = re.compile(rb"(?:" + _CHARS + rb"++|" + _ESCAPE + rb")*+")
"""The inside of a string as far as it goes: up to a quote, a fault or the end of the stretch."""
OPENINGS = re.compile(rb"(?:\[" + _BLANK + rb"|\{" + _BLANK + _NAME + rb")++")
"""Arrays and objects that are opened one in the other, each object with a name."""
CLOSINGS = re.compile(rb"(?:" + _BLANK + rb"[\]}])*+")
"""Brackets that close one level each."""
LITERAL = re.compile(rb"true|false|null")
INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*+)")
FRACTION = re.compile(rb"\.[0-9]++")
EXPONENT = re.compile(rb"[eE][-+]?[0-9]++")
DIGITS = re.compile(rb"[0-9]*+")
NAME = re.compile(_NAME)
"""The name of a member, up to its value."""
VALUE = re.compile(_value(_LEVELS))
"""A whole value of a few levels. A number that ends with the stretch may be longer."""
ARRAY_ITEMS = re.compile(rb"(?:" + _BLANK + _value(_LEVELS) + _BLANK + rb",)*+")
"""Items of an array, each with its comma, as far as they are of a few levels."""
OBJECT_ITEMS = re.compile(rb"(?:" + _BLANK + _NAME + _value(_LEVELS) + _BLANK + rb",)*+")
"""Members of an object likewise."""

# For bodies that are known to be valid.

_INSIDE = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
_TEXT_NAME = rb'"(?:content|text|prompt|input|instructions)"'

ALL_STRINGS = re.compile(rb'(?:[^"]*+"' + _INSIDE + rb'")*+')
"""All up to the end of the last whole string."""
BEFORE_TEXT = re.compile(rb"(?:" + _TEXT_NAME + _BLANK + rb":|[\[,])" + _BLANK + rb"\Z")
"""The end of what stands before a string that may be text of a prompt."""
TEXTS = re.compile(
    rb"(?:" + _TEXT_NAME + _BLANK + rb":|[\[,])" + _BLANK + rb'"(' + _INSIDE + rb')"'
    rb"(?!" + _BLANK + rb':)|"' + _INSIDE + rb'"'
)
"""All strings. The group is the inside of one that may be text of a prompt: the value of a field
that holds such text, or an item of an array."""
