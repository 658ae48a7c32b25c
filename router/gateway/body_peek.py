"""The fields of a request body that route it, read in one parse; the bytes stay as they came.

`read_request` scans the body once. Prompts and tools stay undecoded slices of it, decoded only if a
slice rule asks for them. Unknown fields are skipped and reach the engine untouched.
"""

import json
import operator
import re
from typing import Any

import mmh3
import msgspec

from penumbra.router.errors import BadRequest
from penumbra.router.flags import request_features

_ROUTING_FIELDS = ("model", "stream", "n", "user")
_MARKS = tuple(
    (f'"{name}"'.encode(), re.compile(rf'"{name}"[ \t\r\n]*:'.encode())) for name in _ROUTING_FIELDS
)
"""Each name in quotes, and as a key: `"role": "user"` and `"user": ...` are no duplicates."""

_DISGUISES = (b"\\u006", b"\\u007")
"""Escapes of ASCII letters. No encoder writes them, so they may disguise a field name."""

_ABSENT = msgspec.Raw()


class BodyPeek(msgspec.Struct):
    """The fields of a request body that the gateway looks at; all others are skipped."""

    model: Any = None
    user: Any = None
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    instructions: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    functions: msgspec.Raw = _ABSENT
    text: msgspec.Raw = _ABSENT
    response_format: msgspec.Raw = _ABSENT
    structured_outputs: msgspec.Raw = _ABSENT
    guided_json: msgspec.Raw = _ABSENT
    guided_regex: msgspec.Raw = _ABSENT
    guided_choice: msgspec.Raw = _ABSENT
    guided_grammar: msgspec.Raw = _ABSENT

    def prompt_hash(self) -> str:
        """Hash of the prompt's bytes in the body, 128 bits in hex; empty without a prompt."""
        raw = self.messages or self.prompt or self.input
        return f"{mmh3.hash128(bytes(raw)):032x}" if raw else ""

    def parts(self) -> dict[str, Any]:
        """Decode the fields that slice rules look at.

        Raises:
            msgspec.DecodeError, UnicodeDecodeError: A field is not valid JSON. The first scan
                does not look into strings; the engine refuses such a body.
        """
        raws = zip(request_features.FIELDS, _raw_fields(self), strict=True)
        return {name: _decode_any(raw) for name, raw in raws if raw is not _ABSENT}


_raw_fields = operator.attrgetter(*request_features.FIELDS)
_decode_any = msgspec.json.Decoder().decode
_decode = msgspec.json.Decoder(BodyPeek).decode


def read_request(body: bytes) -> BodyPeek:
    """Read the routing fields of a request body.

    Raises:
        BadRequest: The body is no JSON object, has no `model`, or repeats a routing field.
    """
    try:
        peek = _decode(body)
        if not body.isascii():
            # The scan does not look into the strings that it skips.
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f"the body is not a valid JSON object: {error}", code="invalid_json"
        ) from error
    if not isinstance(peek.model, str) or not peek.model:
        found = "nothing" if peek.model is None else f"{type(peek.model).__name__}"
        raise BadRequest(f"`model` is {found}, wanted the name of a model", param="model")
    if _may_repeat(body):
        _refuse_duplicates(body)
    return peek


def _may_repeat(body: bytes) -> bool:
    for mark, key in _MARKS:
        if body.count(mark) > 1 and len(key.findall(body)) > 1:
            return True
    return _DISGUISES[0] in body or _DISGUISES[1] in body


def _refuse_duplicates(body: bytes) -> None:
    # Two parsers may each take a different one of two equal keys, so such a body is refused.
    # The name may also stand inside tools or a schema, hence the full parse.
    seen: list[list[str]] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen.append([name for name, _ in pairs])

    json.loads(body, object_pairs_hook=note)
    top = seen[-1]
    for name in _ROUTING_FIELDS:
        if top.count(name) > 1:
            raise BadRequest(f"`{name}` appears twice", code="duplicate_field", param=name)
