"""Tells which requests can be compared, from fields that are read already. Pure.

A request that no tap can ask for more, or whose answer could not be read, is never compared: so a
rollout gives its candidate none of them. The check looks at a few fields only; it is made for each
request of a model that a rollout watches.
"""

import re
from typing import Any, Protocol

import msgspec

from penumbra.router.flags.request_routes import CHAT, COMPLETIONS, MESSAGES, RESPONSES

COMPARED_ROUTES = frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES})
"""Names of the routes whose requests are compared."""
LONGEST_BODY_BYTES = 4 * 1024 * 1024
"""Longest body that is tapped: reading it takes 14 ms if it is nothing but nested arrays."""

_NOTHING = frozenset({b"", b"null", b"false", b"0", b'""', b"[]", b"{}"})
_LONGEST_NOTHING = 5
_NAMES = (b'_messages"', b'"request_id"')
"""Ends of the names by which a Responses answer tells token ids, and by which it is asked to; and
the name that a client gives its response itself. In a text the quote has a backslash before it."""
_ESCAPED = b"\\u00"
_DISGUISE = re.compile(rb"\\u00[4-7]")
"""Escapes of ASCII letters and of the underscore, by which such a name may be spelled."""


class ComparedFields(Protocol):
    """The fields of a request body that decide; the raw ones are undecoded JSON."""

    previous_response_id: Any
    background: Any
    return_token_ids: msgspec.Raw
    echo: msgspec.Raw
    return_prompt_text: msgspec.Raw
    kv_transfer_params: msgspec.Raw
    use_beam_search: msgspec.Raw
    prompt_embeds: msgspec.Raw


def is_comparable(route: str, fields: ComparedFields, body: bytes) -> bool:
    """Whether a request can be compared, whatever its answer will be.

    Args:
        route: Name of its route.
        fields: Fields of its body.
        body: Its whole body.
    """
    if route not in COMPARED_ROUTES or len(body) > LONGEST_BODY_BYTES:
        return False
    if not _says_nothing(fields.kv_transfer_params):
        return False  # free JSON, which may hold fields like those of token ids
    if route == RESPONSES:
        return _is_comparable_response(fields, body)
    if route == MESSAGES:
        return True
    return (
        not len(fields.return_token_ids)  # the client has its own wish about them
        and _says_nothing(fields.echo)
        and _says_nothing(fields.return_prompt_text)
        and _says_nothing(fields.use_beam_search)
        and _says_nothing(fields.prompt_embeds)
    )


def _is_comparable_response(fields: ComparedFields, body: bytes) -> bool:
    """Whether a Responses request can be compared.

    One that goes on from a stored response has a history that one build alone knows; one in the
    background has no answer to read. The answer repeats tools and schemas of the request, so these
    must not hold names like those of token ids.
    """
    if fields.background or fields.previous_response_id is not None:
        return False
    if any(name in body for name in _NAMES):
        return False
    return _ESCAPED not in body or _DISGUISE.search(body) is None


def _says_nothing(raw: msgspec.Raw) -> bool:
    return len(raw) <= _LONGEST_NOTHING and bytes(raw) in _NOTHING
