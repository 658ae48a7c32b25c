import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.monitoring.signals.schemas import (
    DEEPEST_LEVEL,
    LARGEST_SCHEMA_BYTES,
    is_valid,
    parse,
)

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)
KEYWORDS = (
    "type", "properties", "items", "required", "$ref", "$defs", "allOf", "anyOf", "oneOf", "not",
    "pattern", "patternProperties", "additionalProperties", "uniqueItems", "enum", "const", "if",
    "then", "multipleOf", "contains", "dependentRequired", "propertyNames", "unevaluatedProperties",
    "$schema", "$id", "$anchor", "$dynamicRef", "minimum", "maxLength", "prefixItems",
)  # fmt: skip
schemas = st.recursive(
    st.sampled_from(["string", "object", "#", "#/$defs/a", "a", "(a+)+$", 1, -1, True, None, 0.5]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=4)
    ),
    max_leaves=15,
)


def check(value: Any, schema: Any) -> bool:
    return is_valid(value, json.dumps(schema).encode())


@pytest.mark.parametrize(
    ("value", "is_right"),
    [
        ({"name": "Ada", "age": 36}, True),
        ({"name": "Ada", "age": 36, "tags": ["a", "b"]}, True),
        ({"name": "Ada"}, False),
        ({"name": "Ada", "age": "36"}, False),
        ({"name": "", "age": 1}, False),
        ({"name": "Ada", "age": 36, "town": "London"}, False),
        ({"name": "Ada", "age": 36, "tags": ["c"]}, False),
        ({"name": "Ada", "age": 36, "tags": ["a", "a"]}, False),
        (["Ada", 36], False),
    ],
)
def test_a_value_is_held_against_its_schema(value: Any, is_right: bool) -> None:
    assert check(value, PERSON) == is_right


@pytest.mark.parametrize(
    "dialect",
    [
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
        "https://example.org/no-such-dialect",
        7,
    ],
)
def test_every_dialect_is_checked(dialect: Any) -> None:
    assert check({"name": "Ada", "age": 36}, {**PERSON, "$schema": dialect})
    assert not check({"name": "Ada", "age": -1}, {**PERSON, "$schema": dialect})


def test_a_tuple_of_items_is_read_as_its_draft_has_it() -> None:
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert check(["a", 1], schema)
    assert not check([1], schema)


def test_patterns_are_checked_where_they_are_tame() -> None:
    assert check("2026-11-21", {"pattern": r"^\d{4}-\d\d-\d\d$"})
    assert not check("21 November", {"pattern": r"^\d{4}-\d\d-\d\d$"})
    named = {"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False}
    assert check({"x-a": "b"}, named)
    assert not check({"x-a": 1}, named)
    assert not check({"y": "b"}, named)


def test_a_schema_of_a_schema_is_known() -> None:
    reference = {"$ref": "http://json-schema.org/draft-07/schema#"}
    assert check({"type": "string"}, reference)
    assert not check({"type": 7}, reference)


def test_a_recursive_schema_is_checked_to_a_depth() -> None:
    schema = {"properties": {"next": {"$ref": "#"}}, "type": "object"}
    shallow: Any = "no object"
    for _ in range(10):
        shallow = {"next": shallow}
    deep: Any = "no object"
    for _ in range(2 * DEEPEST_LEVEL):
        deep = {"next": deep}
    assert not check(shallow, schema)
    assert check(deep, schema)


def exponential(levels: int) -> dict[str, Any]:
    defs: dict[str, Any] = {
        f"l{i}": {"allOf": [{"$ref": f"#/$defs/l{i + 1}"}] * 2} for i in range(levels)
    }
    defs[f"l{levels}"] = {"type": "integer"}
    return {"$defs": defs, "$ref": "#/$defs/l0"}


HOSTILE: dict[str, tuple[Any, Any]] = {
    "a schema that refers to itself": (1, {"allOf": [{"$ref": "#"}]}),
    "a dynamic reference to itself": (1, {"$dynamicRef": "#"}),
    "twice the work with each level": (1, exponential(24)),
    "an expression that backtracks": ("a" * 40 + "!", {"pattern": "^(a+)+$"}),
    "a name that backtracks": ({"a" * 40 + "!": 1}, {"propertyNames": {"pattern": "^(a|a)*$"}}),
    "names that backtrack": ({"a" * 40 + "!": 1}, {"patternProperties": {"(a*)*$": False}}),
    "many branches over a long text": ("x" * 60_000, {"anyOf": [{"type": "null"}] * 3000}),
    "more values than can be looked at": ([0] * 50_000 + [""], {"items": {"type": "integer"}}),
    "an id that is none": (1, {"$id": [], "type": "string"}),
    "another document": (1, {"$ref": "https://127.0.0.1:1/schema.json"}),
    "a file": (1, {"$ref": "file:///etc/passwd"}),
    "an unknown type": (1, {"type": "whole"}),
    "keywords of the wrong kind": ({"a": 1}, {"properties": 5, "required": 7}),
    "an invalid expression": ("a", {"pattern": "("}),
    "a multiple of nothing": (1, {"multipleOf": 0}),
    "unevaluated parts": ({"a": 1}, {"unevaluatedProperties": False}),
}


@pytest.mark.parametrize(("value", "schema"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(10)
def test_a_schema_that_cannot_be_checked_decides_nothing(value: Any, schema: Any) -> None:
    assert check(value, schema)


def test_unsortable_items_are_compared_in_linear_time() -> None:
    items = [{"a": i} for i in range(20_000)]
    assert check(items, {"uniqueItems": True})
    assert not check([*items, {"a": 7.0}], {"uniqueItems": True})
    assert check([1, True, 0, False, "1", [1], {}], {"uniqueItems": True})


def test_a_schema_that_is_too_large_or_none_decides_nothing() -> None:
    large = json.dumps({"type": "string", "description": "x" * LARGEST_SCHEMA_BYTES}).encode()
    assert is_valid(1, large)
    assert is_valid(1, b"{")
    assert is_valid(1, b'"string"')
    assert is_valid(1, b"\xff")


def test_one_check_leaves_the_next_its_whole_budget() -> None:
    assert check(1, exponential(24))
    assert not check({"name": "Ada"}, PERSON)


@settings(deadline=2000)
@given(json_values, st.dictionaries(st.sampled_from(KEYWORDS), schemas, max_size=4))
def test_checking_is_total(value: Any, schema: Any) -> None:
    assert check(value, schema) in (True, False)


@pytest.mark.parametrize(
    ("text", "is_json"),
    [
        ('{"a": [1, 2.5e3, null, "\\u00e9"]}', True),
        (" 7 ", True),
        ("", False),
        ("{'a': 1}", False),
        ('{"a": 1,}', False),
        ('{"a": 1} done', False),
        ("NaN", False),
        ("\ud800", False),
        ("[" * 100_000, False),
        ("1" * 10_000, False),
    ],
)
def test_json_is_told_from_what_looks_like_it(text: str, is_json: bool) -> None:
    assert parse(text)[0] == is_json
