"""Digests of events: two stores' histories that give one epoch twice are told apart by them. Pure.

A store that lost its tail, and was written again, has other events under the same epochs. The time
of an event is exact to a microsecond, so who made which change, why and when tells events apart.
The payload is left out: how it is written differs between releases, and the digest must not.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_COLUMNS = ("epoch", "at", "actor", "reason", "kind", "model")
_CHARS = 32


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest event of a store."""

    epoch: int
    digest: str


NOTHING = Newest(0, "")
"""The newest event of a store without events."""


def digest_of(event: Mapping[Any, Any]) -> str:
    """Digest of an event, of 32 hexadecimal digits.

    Args:
        event: Its fields by name, as stored or as `Event` has them; others than those that every
            event has are ignored.
    """
    texts = [_text(event[name]) for name in _COLUMNS]
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:_CHARS]


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
