"""A large request body, read in steps: the same fields that `read_at_once` finds in a small one.

Reading order: LargeBody.step, LargeBody._peek, LargePeek. Pure.
"""

from functools import partial
from typing import Any

import mmh3
import msgspec

from penumbra.router.errors import BadRequest
from penumbra.router.flags import request_features
from penumbra.router.gateway.body_peek import (
    AT_ONCE_BYTES,
    DECODED_FIELDS,
    MOST_VALUES,
    UNDECODED_FIELDS,
    BodyPeek,
    check_model,
    read_at_once,
    refuse_repeated,
)
from penumbra.router.gateway.body_scan import BodyScan, Field
from penumbra.router.gateway.body_tokens import invalid_json
from penumbra.router.gateway.prompt_length import PromptLength

_PARTS_BYTES = 4 * 1024 * 1024
"""Most bytes that are decoded for slice rules: 8 ms of text that is all escapes."""
_PROMPT_FIELDS = ("messages", "prompt", "input", "instructions")
_DECODED = frozenset(DECODED_FIELDS)
_WANTED = _DECODED | frozenset(UNDECODED_FIELDS)
_decode_any = msgspec.json.Decoder().decode


class PartsTooLarge(Exception):
    """The fields that slice rules look at hold too much to be decoded in one go."""


class LargePeek(BodyPeek):
    """The peek into a body that was read in steps."""

    has_large_parts: bool = False
    measured_chars: int = 0

    @property
    def least_chars(self) -> int:
        """See `BodyPeek`."""
        return self.measured_chars

    def parts(self) -> dict[str, Any]:
        """Decode the fields that slice rules look at, as `BodyPeek` does.

        Raises:
            PartsTooLarge: They hold too much.
        """
        if self.has_large_parts:
            raise PartsTooLarge("the fields that slice rules look at are too large")
        return super().parts()


class LargeBody:
    """The reading of one body.

    Args:
        body: The body.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._values: dict[str, Any] = {}
        # No method of this object: two that hold each other wait for the collector.
        self._scan = BodyScan(body, _WANTED, partial(_decode_field, body, self._values))
        self._lengths: list[PromptLength] | None = None
        """The parts of a prompt that is too large to be decoded; None while the body is scanned."""

    def step(self) -> BodyPeek | None:
        """Go on for a bounded time; return the peek when it is complete.

        Raises:
            BadRequest: As `read_request`.
        """
        if self._lengths is None:
            if not self._scan.step():
                return None
            check_model(self._values.get("model"))
            refuse_repeated(self._scan.repeated)
            self._lengths = self._large_prompt()
            if self._lengths:
                return None
        if not all(length.step() for length in self._lengths):
            return None
        return self._peek(self._lengths)

    def close(self) -> None:
        """Let go of the body, which is not read to the end."""
        self._scan.close()
        for length in self._lengths or ():
            length.close()

    def _large_prompt(self) -> list[PromptLength]:
        fields = self._scan.fields
        parts = [fields[name] for name in request_features.FIELDS if name in fields]
        size = sum(field.end - field.begin for field in parts)
        if size <= _PARTS_BYTES and sum(field.values for field in parts) <= MOST_VALUES:
            return []
        prompts = [fields[name] for name in _PROMPT_FIELDS if name in fields]
        return [PromptLength(self._body, field) for field in prompts or parts]

    def _peek(self, lengths: list[PromptLength]) -> BodyPeek:
        body, found = memoryview(self._body), self._scan.fields
        raws = {
            name: msgspec.Raw(body[found[name].begin : found[name].end])
            for name in UNDECODED_FIELDS
            if name in found
        }
        metadata = raws.get("metadata")
        if metadata is not None and len(metadata) > AT_ONCE_BYTES:
            del raws["metadata"]
        return LargePeek(
            **self._values,
            **raws,
            has_large_parts=bool(lengths),
            measured_chars=sum(length.least_chars for length in lengths),
        )


def _decode_field(body: bytes, values: dict[str, Any], field: Field) -> None:
    """Decode a field that is short; a digest stands for a longer one."""
    name = field.name
    if name not in _DECODED:
        return
    raw = body[field.begin : field.end]
    if len(raw) > AT_ONCE_BYTES:
        if name == "model":
            raise BadRequest("`model` is too long for the name of a model", param="model")
        values[name] = f"{mmh3.hash128(raw):032x}"
        return
    try:
        values[name] = _decode_any(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid_json(f"{error} (in `{name}`)") from error


def read_request(body: bytes) -> BodyPeek:
    """Read a body to the end, however long that takes.

    Raises:
        BadRequest: The body is no JSON object, its `model` is no name, or it repeats a routing
            field.
    """
    peek = read_at_once(body)
    if peek is not None:
        return peek
    large = LargeBody(body)
    while (peek := large.step()) is None:
        pass
    return peek
