"""Facts that tell one build from another: their bounds, comparison and digest. Pure.

A build is more than its weights: the engine's version, the KV cache's type, prefix caching, the
attention kernel or a draft model change answers as well. Each such fact has a name and a short
text. Two readings are compared fact by fact, so that a change is named, and a fact that could not
be read this time changes nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

MOST_FACTS = 64
MOST_CHARACTERS = 200
"""Of a fact's text; a longer one is replaced by its digest."""


def read_facts(told: Any) -> dict[str, str]:
    """Read facts that a server tells, within the bounds.

    Raises:
        ValueError: They are no object of texts.
    """
    if not isinstance(told, dict):
        raise ValueError(f"found {type(told).__name__}, wanted an object of texts")
    facts: dict[str, str] = {}
    for name in sorted(told)[:MOST_FACTS]:
        text = told[name]
        if not isinstance(name, str) or not isinstance(text, str):
            raise ValueError(f"{name!r}: found {type(text).__name__}, wanted a text")
        facts[name[:MOST_CHARACTERS]] = short(text)
    return facts


def short(text: str) -> str:
    """A text as a fact: itself, or its digest if it is long."""
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def digest(facts: Mapping[str, str]) -> str:
    """Hex digest of facts: the fingerprint of the build that they describe."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()


def differences(known: Mapping[str, str], told: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Facts that both have and that differ: name -> (known, told). Others say nothing."""
    return {
        name: (known[name], told[name])
        for name in sorted(known.keys() & told.keys())
        if known[name] != told[name]
    }
