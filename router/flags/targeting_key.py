"""Targeting key of a request: the text that a split is sticky on. Pure.

It is the first of these that the request has:

    x-user-id                       header
    user                            of the body
    safety_identifier               of the body
    metadata.user_id                of the body
    sticky_headers                  of the model, in their order
    x-session-id                    header
    API key and conversation        the key's id and a hash of the conversation's root

The root is what every turn of a conversation begins with: its instructions and its first user
message. So a chat stays on its build over its turns. It is hashed by value, so the same messages in
another spelling of their JSON have the same key, and only the beginning of a body is decoded.
Nothing here raises, whatever the body holds.

Reading order: targeting_key, root_hash.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from json.scanner import make_scanner
from typing import Any, Protocol

import mmh3
import msgspec

from penumbra.router.flags.slices import Headers

ROOT_BYTES = 64 * 1024
"""Bytes of a field that are read: what a first message has beyond them is in no key."""
PLAIN_BYTES = 32 * 1024
"""Shorter conversations are decoded at once."""
MOST_MESSAGES = 32
"""Messages among which the first of a user is looked for."""
HASHED_BYTES = 1024 * 1024
"""Bytes that are hashed of a prompt that is no conversation."""
METADATA_BYTES = 16 * 1024
"""Larger metadata is not read: OpenAI's limit is 16 pairs of 576 characters."""

_INSTRUCTIONS = ("system", "developer")  # compared, not hashed: a role may be anything
_BLANKS = " \t\r\n"
_BETWEEN = _BLANKS + ","
_scan_json = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]


class KeyFields(Protocol):
    """The fields of a request body that its key may come from; the raw ones are undecoded JSON."""

    user: Any
    safety_identifier: Any
    metadata: msgspec.Raw
    messages: msgspec.Raw
    system: msgspec.Raw
    prompt: msgspec.Raw
    input: msgspec.Raw
    instructions: msgspec.Raw


class _Metadata(msgspec.Struct):
    user_id: Any = None


class _Message(msgspec.Struct):
    role: Any = None
    content: Any = None


_read_metadata = msgspec.json.Decoder(_Metadata).decode
_read_messages = msgspec.json.Decoder(list[_Message]).decode


def targeting_key(
    headers: Headers, fields: KeyFields, sticky_headers: Iterable[str], key_id: str, body: bytes
) -> str:
    """Return the key that a split is sticky on.

    Args:
        headers: The request's headers.
        fields: Fields of its body.
        sticky_headers: Names of the model's own sticky headers, in lower case.
        key_id: Id of the API key; may be empty.
        body: The whole body: what a request without a conversation is told apart by.
    """
    user = headers.get("x-user-id") or fields.user
    if not user or not isinstance(user, str):
        user = _user_of(fields)
    if user:
        return user
    for name in sticky_headers:
        value = headers.get(name)
        if value:
            return value
    session = headers.get("x-session-id")
    return session or f"{key_id}:{root_hash(fields) or _hash(memoryview(body)[:HASHED_BYTES])}"


def root_hash(fields: KeyFields) -> str:
    """Hash the root of a conversation, 128 bits in hex; empty without messages, prompt or input.

    Messages are hashed by role and content, a prompt as its bytes. Of an `input` that is no
    conversation, such as a batch of texts to embed, all is hashed.
    """
    raw = fields.messages or fields.input
    if not raw:
        return _hash(memoryview(fields.prompt)[:HASHED_BYTES]) if fields.prompt else ""
    if not (fields.system or fields.instructions) and len(raw) <= PLAIN_BYTES:
        plain = _plain_root(raw)
        if plain is not None:
            return _hash(plain)
    try:
        instructions = [*_instructions(fields.system), *_instructions(fields.instructions)]
        turns = list(_first_turns(_values(raw)))
        if turns:
            return _hash("\0".join([*instructions, *turns]).encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        pass  # the engine will refuse it
    return _hash(memoryview(raw)[:HASHED_BYTES])


def _plain_root(raw: msgspec.Raw) -> bytes | None:
    """The root of a short conversation of plain texts; None if it is not one.

    The same text as the general way makes, in a tenth of its time.
    """
    try:
        messages = _read_messages(raw)
    except (ValueError, RecursionError):
        return None
    turns = []
    for message in messages[:MOST_MESSAGES]:
        role, content = message.role, message.content
        is_user = role == "user"
        if not isinstance(content, str) or not (is_user or role in _INSTRUCTIONS):
            return None
        turns.append(f"{role}\0{content}")
        if is_user:
            return "\0".join(turns).encode("utf-8", "surrogatepass")
    return None


def _user_of(fields: KeyFields) -> str | None:
    for value in (fields.user, fields.safety_identifier):
        if value and isinstance(value, str):
            return value
    metadata = fields.metadata
    if not metadata or len(metadata) > METADATA_BYTES:
        return None
    try:
        user = _read_metadata(metadata).user_id
    except (ValueError, RecursionError):
        return None  # it is no object, or nested too deeply
    return user if isinstance(user, str) else None


def _instructions(raw: msgspec.Raw) -> list[str]:
    if not raw:
        return []
    text = _beginning(raw)
    try:
        return [_turn("system", _scan(text, 0)[0])]
    except ValueError:
        return [_turn("system", text)]


def _first_turns(messages: Iterator[Any]) -> Iterator[str]:
    """Role and content of the instructions that come first, and of the first user message.

    Without a user message it is the first one of any role.
    """
    is_start, first = True, ""
    for message in itertools.islice(messages, MOST_MESSAGES):
        if not isinstance(message, dict):
            return  # a batch of texts, or token ids
        role = message.get("role")
        turn = _turn(role, message.get("content", message))
        if role == "user":
            yield turn
            return
        is_start = is_start and role in _INSTRUCTIONS
        if is_start:
            yield turn
        first = first or turn
    if first:
        yield first


def _values(raw: msgspec.Raw) -> Iterator[Any]:
    """The values at the start of a JSON array; a text that is none is a message of a user.

    So is what can be read of a value that goes on behind `ROOT_BYTES`.
    """
    text = _beginning(raw)
    if not text.startswith("["):
        is_whole = len(raw) <= ROOT_BYTES
        yield {"role": "user", "content": _scan(text, 0)[0] if is_whole else text}
        return
    at = 1
    while True:
        while at < len(text) and text[at] in _BETWEEN:
            at += 1
        if at >= len(text) or text[at] == "]":
            return
        try:
            value, at = _scan(text, at)
        except ValueError:
            yield {"role": "user", "content": text[at:]}
            return
        yield value


def _scan(text: str, at: int) -> tuple[Any, int]:
    """Decode the JSON value that begins there, and find its end; ValueError if it has none."""
    try:
        return _scan_json(text, at)
    except StopIteration:
        raise ValueError("no JSON value") from None


def _turn(role: object, content: object) -> str:
    return f"{role if isinstance(role, str) else _written(role)}\0{_content(content)}"


def _content(value: Any) -> str:
    """The text of a content, whole or in parts; what is no text as JSON.

    Where a cache may end is no part of a content: clients move these marks from turn to turn.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\x1e".join(map(_part, value))
    return _written(value)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        text = part.get("text")
        if isinstance(text, str):
            return text
        return _written({name: value for name, value in part.items() if name != "cache_control"})
    return _written(part)


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _beginning(raw: msgspec.Raw) -> str:
    return str(memoryview(raw)[:ROOT_BYTES], "utf-8", "replace").lstrip(_BLANKS)


def _hash(data: bytes | memoryview) -> str:
    return f"{mmh3.mmh3_x64_128_uintdigest(data):032x}"
