"""Checks JSON against clients' JSON schemas at a bounded cost. Pure.

The bound holds for every schema and every value. A schema that is too large, broken, points
elsewhere or costs too much decides nothing: the value counts as valid, for both builds alike.
`format` and `unevaluated*` are not checked; a `pattern` only where the search is bounded.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import jsonschema
import msgspec
import referencing

from penumbra.monitoring.signals.patterns import search

LARGEST_SCHEMA_BYTES = 65_536
MOST_STEPS = 20_000
"""Applications of a keyword to a value, larger ones counting more; some 10 us each."""

DEEPEST_LEVEL = 80
"""Keywords within keywords. An interpreter out of stack inside the schema library's native part
would be a panic there, not an exception here, so it has to end well before."""

_CACHED_SCHEMAS = 256
_STEPS_OF_AN_ANCHOR = 1000
"""To find one, the whole schema is walked through."""
_SIZE_OF_A_STEP = 16
_CHARS_OF_A_STEP = 64

_Errors = Iterator[jsonschema.ValidationError]
_Keyword = Callable[[Any, Any, Any, Any], _Errors | None]


class _Undecided(Exception):
    """The check costs more than it may."""


class _Budget:
    """Steps and levels that one check may still use."""

    __slots__ = ("level", "steps")

    def __init__(self) -> None:
        self.steps = MOST_STEPS
        self.level = 0

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise _Undecided

    def descend(self) -> None:
        self.level += 1
        if self.level > DEEPEST_LEVEL:
            raise _Undecided


_budget: ContextVar[_Budget] = ContextVar("schema_budget")


def parse(text: str) -> tuple[bool, Any]:
    """Whether a text is one JSON value, and that value."""
    try:
        return True, msgspec.json.decode(text)
    # A number of too many digits is a ValueError, as is a lone surrogate.
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False, None


def is_valid(value: object, schema: bytes) -> bool:
    """Whether a value fits a schema; True where that cannot be decided.

    Args:
        value: Decoded JSON.
        schema: A JSON schema as JSON, of any draft from 4 to 2020-12.
    """
    token = _budget.set(_Budget())
    try:
        validator = _validator(schema)
        return validator is None or bool(validator.is_valid(value))
    except Exception:  # noqa: BLE001 - a client's schema may be wrong in any way
        return True
    finally:
        _budget.reset(token)


@functools.lru_cache(maxsize=_CACHED_SCHEMAS)
def _validator(schema: bytes) -> Any:
    """The validator of a schema; None if it is too large, or no schema."""
    if len(schema) > LARGEST_SCHEMA_BYTES:
        return None
    is_json, wanted = parse(schema.decode(errors="replace"))
    if not is_json or not isinstance(wanted, dict):
        return None
    dialect = wanted.get("$schema")
    draft = _DRAFTS.get(dialect.rstrip("#") if isinstance(dialect, str) else "", _LATEST)
    # An empty registry: a reference to anywhere else is never followed.
    return draft(wanted, registry=referencing.Registry())


def _count_steps(keyword: _Keyword) -> _Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> _Errors:
        budget = _budget.get()
        budget.spend(1 + (_size(value) + _size(instance)) // _SIZE_OF_A_STEP)
        budget.descend()
        try:
            for error in keyword(validator, value, instance, schema) or ():
                # Its message holds the value.
                budget.spend(len(error.message) // _CHARS_OF_A_STEP)
                yield error
        finally:
            budget.level -= 1

    return check


def _size(value: object) -> int:
    return len(value) if isinstance(value, (list, dict, str)) else 0


def _ref(keyword: _Keyword) -> _Keyword:
    def check(validator: Any, ref: Any, instance: Any, schema: Any) -> _Errors:
        if isinstance(ref, str) and not ref.startswith("#/") and ref != "#":
            _budget.get().spend(_STEPS_OF_AN_ANCHOR)
        yield from keyword(validator, ref, instance, schema) or ()

    return check


def _pattern(validator: Any, pattern: Any, instance: Any, _: Any) -> _Errors:
    if validator.is_type(instance, "string") and not search(pattern, instance):
        yield jsonschema.ValidationError("the pattern does not match")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> _Errors:
    if not validator.is_type(instance, "object"):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            if search(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> _Errors:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name not in known and not any(search(pattern, name) for pattern in patterns):
            yield from validator.descend(value, wanted, path=name)


def _unique_items(validator: Any, is_wanted: Any, instance: Any, _: Any) -> _Errors:
    if is_wanted and validator.is_type(instance, "array"):
        seen = {_hashable(item) for item in instance}
        if len(seen) < len(instance):
            yield jsonschema.ValidationError("items are equal")


def _hashable(value: object) -> object:
    """The same for equal JSON values only: 1 is 1.0, but not true."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return frozenset((name, _hashable(item)) for name, item in value.items())
    return value


def _unchecked(_validator: Any, _value: Any, _instance: Any, _schema: Any) -> None:
    """Not checked: what counts as evaluated may take exponential time to find out."""


_OWN: Mapping[str, _Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "unevaluatedItems": _unchecked,
    "unevaluatedProperties": _unchecked,
}


def _bound(draft: Any) -> Any:
    keywords = {**draft.VALIDATORS}
    keywords.update({name: check for name, check in _OWN.items() if name in keywords})
    for name in ("$ref", "$dynamicRef", "$recursiveRef"):
        if name in keywords:
            keywords[name] = _ref(keywords[name])
    counted = {name: _count_steps(keyword) for name, keyword in keywords.items()}
    return jsonschema.validators.extend(draft, counted)


_LATEST = _bound(jsonschema.Draft202012Validator)
_DRAFTS: Mapping[str, Any] = {
    "http://json-schema.org/draft-04/schema": _bound(jsonschema.Draft4Validator),
    "http://json-schema.org/draft-06/schema": _bound(jsonschema.Draft6Validator),
    "http://json-schema.org/draft-07/schema": _bound(jsonschema.Draft7Validator),
    "https://json-schema.org/draft/2019-09/schema": _bound(jsonschema.Draft201909Validator),
    "https://json-schema.org/draft/2020-12/schema": _LATEST,
}
