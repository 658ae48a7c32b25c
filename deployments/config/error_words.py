"""Words for validation errors: `problems` turns a pydantic error into `path: found X, wanted Y`.

The wanted value is read from the model's own JSON schema, so it cannot be out of date. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

Schema = Mapping[str, Any]
Location = Sequence[int | str]

_FOUND_CHARS = 80
_TYPES = {"string": "text", "array": "a list", "object": "a mapping", "boolean": "true or false"}


def problems(error: ValidationError, model: type[BaseModel]) -> tuple[str, ...]:
    """Describes each problem in one text."""
    root = model.model_json_schema()
    return tuple(
        _describe_problem(dict(detail), root) for detail in error.errors(include_url=False)
    )


def path_text(location: Location) -> str:
    """Writes a location as a path: `models.demo.slices[0].name`."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the file"


def shown(value: object) -> str:
    """Writes a value as JSON, shortened."""
    if value is None:
        return "null"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _FOUND_CHARS else f"{text[:_FOUND_CHARS]}…"


def _describe_problem(detail: dict[str, Any], root: Schema) -> str:
    location = detail["loc"]
    path = path_text(location)
    if detail["type"] == "value_error":
        return f"{path}: {detail['ctx']['error']}"
    if detail["type"] == "extra_forbidden":
        known = ", ".join(_schema_at(root, location[:-1]).get("properties", {}))
        return f"{path}: found an unknown key, wanted one of {known}"
    found = "nothing" if detail["type"] == "missing" else shown(detail["input"])
    return f"{path}: found {found}, wanted {describe(_schema_at(root, location), root)}"


def describe(schema: Schema, root: Schema) -> str:
    """Describes the values that a schema accepts."""
    schema = _resolve(schema, root)
    if "wanted" in schema:
        return str(schema["wanted"])
    choices = schema.get("anyOf")
    if choices:
        words = [describe(choice, root) for choice in choices if choice.get("type") != "null"]
        return " or ".join(words)
    if "enum" in schema or "const" in schema:
        return f"one of {', '.join(map(str, schema.get('enum', [schema.get('const')])))}"
    return _describe_type(schema)


def _describe_type(schema: Schema) -> str:
    kind = str(schema.get("type", ""))
    if kind in ("integer", "number"):
        return _with_bounds("an integer" if kind == "integer" else "a number", schema)
    text = _TYPES.get(kind, "a value")
    if "pattern" in schema:
        return f"text like {schema['pattern']}"
    if schema.get("minLength") or schema.get("minItems") or schema.get("minProperties"):
        return f"{text} that is not empty"
    limit = schema.get("maxItems", schema.get("maxLength"))
    return text if limit is None else f"{text} of at most {limit}"


def _with_bounds(text: str, schema: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f"{text} {' and '.join(bounds)}" if bounds else text


def _schema_at(root: Schema, location: Location) -> Schema:
    schema = _resolve(root, root)
    for step in location:
        schema = _step(schema, step, root)
    return schema


def _step(schema: Schema, step: int | str, root: Schema) -> Schema:
    for choice in [schema, *schema.get("anyOf", ())]:
        resolved = _resolve(choice, root)
        inner = (
            resolved.get("items")
            if isinstance(step, int)
            else resolved.get("properties", {}).get(step, resolved.get("additionalProperties"))
        )
        if isinstance(inner, Mapping):
            return _resolve(inner, root)
    return {}


def _resolve(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        schema = root["$defs"][name]
    return schema
