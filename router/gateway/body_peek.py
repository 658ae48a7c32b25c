"""The fields of a request body that decide what happens to it; the bytes stay as they came.

`read_at_once` decodes a small body in one parse. Prompts and tools stay undecoded slices of it,
decoded only if a slice rule asks for them. Unknown fields are skipped and reach the engine
untouched. Bodies that would hold up the event loop, and those that may repeat a field, are left to
`penumbra.router.gateway.large_body`, which reads the same from them, step by step.
"""

import operator
import re
from typing import Any

import msgspec

from penumbra.router.errors import BadRequest
from penumbra.router.flags import request_features

AT_ONCE_BYTES = 128 * 1024
"""Largest body that is decoded at once: 3 ms if it is made of nothing but empty objects."""

MOST_VALUES = 16_000
"""Values that slice rules look at, at most: 5 ms of decoding and counting."""

_ROUTING_FIELDS = ("model", "stream", "n", "user")
_Mark = tuple[bytes, bytes, bytes, tuple[bytes, ...], re.Pattern[bytes]]
_MARKS: tuple[_Mark, ...] = tuple(
    (
        f'"{name}"'.encode(),
        f'"{name}":'.encode(),
        f'"{name}",'.encode(),
        tuple(f'"{name}"{blank}'.encode() for blank in " \t\r\n"),
        re.compile(rf'"{name}"[ \t\r\n]*+:'.encode()),
    )
    for name in _ROUTING_FIELDS
)
"""Each name in quotes, as a key and as a value: `"role": "user"` and `"user": ...` are no
duplicates. The expression is for keys with blanks before their colon, which few encoders write: it
is slower."""

_DISGUISES = (b"\\u006", b"\\u007")
"""Escapes of ASCII letters. No encoder writes them, so they may disguise a field name."""

_ABSENT = msgspec.Raw()
_EMPTY = frozenset({b"null", b"false", b"[]", b"{}"})
_LONGEST_EMPTY_BYTES = 64
"""Longest value that is compared with the empty ones, white space inside it included."""


class BodyPeek(msgspec.Struct):
    """The fields of a request body that the gateway looks at; all others are skipped."""

    model: Any = None
    user: Any = None
    stream: Any = None
    n: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    encoding_format: Any = None
    safety_identifier: Any = None
    previous_response_id: Any = None
    background: Any = None
    metadata: msgspec.Raw = _ABSENT
    messages: msgspec.Raw = _ABSENT
    system: msgspec.Raw = _ABSENT
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
    logprobs: msgspec.Raw = _ABSENT
    top_logprobs: msgspec.Raw = _ABSENT
    prompt_logprobs: msgspec.Raw = _ABSENT
    echo: msgspec.Raw = _ABSENT
    return_token_ids: msgspec.Raw = _ABSENT
    use_beam_search: msgspec.Raw = _ABSENT
    prompt_embeds: msgspec.Raw = _ABSENT
    return_prompt_text: msgspec.Raw = _ABSENT
    kv_transfer_params: msgspec.Raw = _ABSENT
    suffix: msgspec.Raw = _ABSENT
    include_reasoning: msgspec.Raw = _ABSENT

    @property
    def may_be_continued(self) -> bool:
        """Whether a stream of this request, once broken, may be continued by another build.

        False only if `penumbra.router.dispatch.continuation.check_continuable` refuses it for sure;
        which decodes the body and so is left to the few streams that do break.
        """
        if self.n not in (None, 1) or bytes(self.include_reasoning) == b"false":
            return False
        raws = _uncontinuable_fields(self)
        if raws.count(_ABSENT) < len(raws):
            for raw in raws:
                if raw is not _ABSENT and not _may_be_empty(raw):
                    return False
        return self.response_format is _ABSENT or _may_be_text(self.response_format)

    @property
    def least_chars(self) -> int:
        """Characters of a prompt that `parts` cannot decode: at least so many; else 0."""
        return 0

    def parts(self) -> dict[str, Any]:
        """Decode the fields that slice rules look at.

        Raises:
            msgspec.DecodeError, UnicodeDecodeError: A field is not valid JSON. The first scan
                does not look into strings; the engine refuses such a body.
            RecursionError: A field is nested too deeply.
        """
        raws = _feature_fields(self)
        if self.messages is not _ABSENT and raws.count(_ABSENT) == len(raws) - 1:
            return {"messages": _decode_any(self.messages)}  # as nearly always
        named = zip(request_features.FIELDS, raws, strict=True)
        return {name: _decode_any(raw) for name, raw in named if raw is not _ABSENT}


_UNCONTINUABLE = (
    "tools", "functions", "structured_outputs", "guided_json", "guided_regex", "guided_choice",
    "guided_grammar", "logprobs", "top_logprobs", "prompt_logprobs", "echo", "return_token_ids",
    "use_beam_search", "prompt_embeds", "suffix",
)  # fmt: skip
"""Fields that rule a continuation out, `response_format` aside."""
_uncontinuable_fields = operator.attrgetter(*_UNCONTINUABLE)
_feature_fields = operator.attrgetter(*request_features.FIELDS)
_decode_any = msgspec.json.Decoder().decode
_decode = msgspec.json.Decoder(BodyPeek).decode

_KNOWN_FIELDS = msgspec.structs.fields(BodyPeek)
DECODED_FIELDS, UNDECODED_FIELDS = (
    tuple(known.name for known in _KNOWN_FIELDS if (known.type is Any) is is_decoded)
    for is_decoded in (True, False)
)
"""Fields of `BodyPeek` that are decoded, and those that stay slices of the body."""
_undecoded_fields = operator.attrgetter(*UNDECODED_FIELDS)


def read_at_once(body: bytes) -> BodyPeek | None:
    """Read a body in one parse; None if it has to be read in steps.

    Raises:
        BadRequest: The body is no JSON object, or its `model` is no name.
    """
    if len(body) > AT_ONCE_BYTES:
        return None
    if len(body) > 2 * MOST_VALUES and body.count(b",") > MOST_VALUES:
        return None
    peek = decode(body)
    return None if _may_repeat(body) and _may_repeat_outside(body, peek) else peek


def decode(body: bytes) -> BodyPeek:
    """Decode a body, however long that takes; of repeated fields the last one counts.

    Raises:
        BadRequest: The body is no JSON object, or its `model` is no name.
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
    if type(peek.model) is not str or not peek.model:
        check_model(peek.model)
    return peek


def check_model(model: object) -> None:
    """Refuse a `model` that is no name; one that is left out is looked at by the routing.

    Raises:
        BadRequest: It is no text, or an empty one.
    """
    if model is not None and (not isinstance(model, str) or not model):
        found = repr(model) if isinstance(model, str) else type(model).__name__
        raise BadRequest(f"`model` is {found}, wanted the name of a model", param="model")


def refuse_repeated(repeated: set[str]) -> None:
    """Refuse a body that has a routing field twice: two parsers may each take another one.

    Args:
        repeated: The fields that the top level has twice.

    Raises:
        BadRequest: Names the first of them.
    """
    for name in _ROUTING_FIELDS:
        if name in repeated:
            raise BadRequest(f"`{name}` appears twice", code="duplicate_field", param=name)


def _may_repeat(body: bytes) -> bool:
    for mark in _MARKS:
        found = body.count(mark[0])
        if found > 1 and _count_keys(body, found, mark) > 1:
            return True
    return _DISGUISES[0] in body or _DISGUISES[1] in body


def _may_repeat_outside(body: bytes, peek: BodyPeek) -> bool:
    """Whether a name may repeat outside the undecoded fields: in tools it often does."""
    inside = b"\n".join(_undecoded_fields(peek))
    for mark in _MARKS:
        if body.count(mark[0]) > 1:
            keys = _count_keys(body, body.count(mark[0]), mark)
            if keys > 1 and keys - _count_keys(inside, inside.count(mark[0]), mark) > 1:
                return True
    return any(body.count(escape) > inside.count(escape) for escape in _DISGUISES)


def _count_keys(text: bytes, found: int, mark: _Mark) -> int:
    _, key, value, with_blanks, pattern = mark
    keys = text.count(key)
    if found == keys + text.count(value):  # as encoders write: no blank before any colon
        return keys
    for name in with_blanks:
        if name in text:
            return len(pattern.findall(text))
    return keys


def _may_be_empty(raw: msgspec.Raw) -> bool:
    """Whether a value may be one that says nothing: null, false, or an empty list or object."""
    value = bytes(memoryview(raw)[:_LONGEST_EMPTY_BYTES])
    value = b"".join(value.split())
    return value in _EMPTY or (len(raw) > _LONGEST_EMPTY_BYTES and value in (b"[", b"{"))


def _may_be_text(response_format: msgspec.Raw) -> bool:
    """Whether a response format may be the one of plain text."""
    if _may_be_empty(response_format):
        return True
    value = bytes(response_format)
    return value.startswith(b"{") and (b'"text"' in value or b"\\" in value)
