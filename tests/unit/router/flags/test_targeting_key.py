"""Targeting keys: whom and what a split is sticky on."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.flags.targeting_key import ROOT_BYTES, root_hash, targeting_key

SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello, Zoë"}
ANSWER = {"role": "assistant", "content": "Hi."}


class Fields(msgspec.Struct):
    """As the gateway reads a body."""

    user: Any = None
    safety_identifier: Any = None
    metadata: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()


def key_of(body: dict[str, Any] | bytes, **headers: str) -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    fields = msgspec.json.decode(raw, type=Fields)
    return targeting_key(given_headers, fields, ("x-chat-user", "x-other"), "key-1", raw)


def root_of(dumps: Callable[..., str] = json.dumps, **body: Any) -> str:
    return root_hash(msgspec.json.decode(dumps(body).encode(), type=Fields))


SOURCES: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("by-header", {}, {"x_user_id": "by-header"}),
    ("by-user", {"user": "by-user"}, {}),
    ("by-safety", {"safety_identifier": "by-safety"}, {}),
    ("by-metadata", {"metadata": {"user_id": "by-metadata", "a": [1]}}, {}),
    ("by-sticky", {}, {"x_chat_user": "by-sticky"}),
    ("by-second", {}, {"x_other": "by-second"}),
    ("by-session", {}, {"x_session_id": "by-session"}),
]


@pytest.mark.parametrize("first", range(len(SOURCES)))
def test_the_first_source_that_a_request_has_is_its_key(first: int) -> None:
    body: dict[str, Any] = {"messages": [HELLO], "prompt_cache_key": "of-the-application"}
    headers: dict[str, str] = {}
    for _, fields, lines in SOURCES[first:]:
        body |= fields
        headers |= lines
    assert key_of(body, **headers) == SOURCES[first][0]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "", "safety_identifier": None, "metadata": {}},
        {"user": 7, "safety_identifier": ["a"], "metadata": {"user_id": 7}},
        {"metadata": "x", "prompt_cache_key": "app"},
        {"metadata": [1]},
        {"metadata": {"user_id": "far", "more": "x" * 20_000}},
    ],
)
def test_without_any_it_is_the_api_key_and_the_conversation(body: dict[str, Any]) -> None:
    found = key_of({"messages": [SYSTEM, HELLO], **body}, x_user_id="", x_session_id="")
    assert found == f"key-1:{root_of(messages=[SYSTEM, HELLO])}"


CHATS: list[list[dict[str, Any]]] = [
    [HELLO],
    [SYSTEM, HELLO],
    [SYSTEM, {"role": "developer", "content": "No jokes."}, HELLO],
    [ANSWER, HELLO],
    [SYSTEM, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
    [SYSTEM, {"role": "user", "content": "long " * ROOT_BYTES}],
    [{"role": "system", "content": "ж" * ROOT_BYTES}, HELLO],
]


@pytest.mark.parametrize("chat", CHATS)
def test_a_chat_keeps_its_root_over_its_turns(chat: list[dict[str, Any]]) -> None:
    turns = [
        ANSWER,
        {"role": "user", "content": "more " * 40_000},
        {"role": "tool", "content": "5"},
    ]
    roots = {root_of(messages=[*chat, *turns[:count]]) for count in range(len(turns) + 1)}
    assert len(roots) == 1


def test_two_conversations_have_two_roots() -> None:
    bodies: list[dict[str, Any]] = [{"messages": chat} for chat in CHATS if chat[0] != ANSWER]
    bodies += [
        {"messages": [{"role": "user", "content": "Bye"}]},
        {"messages": [{"role": "assistant", "content": "Hello, Zoë"}]},
        {"messages": [SYSTEM]},
        {"messages": [HELLO], "system": "Be long."},
        {"input": "Hello, Zoë", "instructions": "Be kind."},
        {"prompt": "Hello, Zoë"},
        {"prompt": [1, 2, 3]},
        {"input": ["Hello, Zoë", "a"]},
        {"input": ["Hello, Zoë", "b"]},
        {"input": [[1, 2], [3]]},
        {"input": [[1, 2], [4]]},
    ]
    roots = [root_of(**body) for body in bodies]
    for (one, first), (other, second) in itertools.combinations(enumerate(roots), 2):
        assert first != second, (bodies[one], bodies[other])


def test_all_routes_tell_a_conversation_by_instructions_and_first_message() -> None:
    turns = [HELLO, ANSWER, {"role": "user", "content": "And?"}]
    for instructions in ({"instructions": "Be brief."}, {"system": "Be brief."}):
        field = "messages" if "system" in instructions else "input"
        assert len({root_of(**instructions, **{field: turns[:n]}) for n in (1, 3)}) == 1
    # The first turn may come as a text, and later ones as a list.
    assert root_of(input="Hello, Zoë") == root_of(input=turns)
    parts = [{"type": "input_text", "text": "Hello, Zoë"}]
    assert root_of(input=[{"role": "user", "content": parts}, ANSWER]) == root_of(input=turns)


def test_a_mark_of_where_the_cache_may_end_is_no_part_of_a_root() -> None:
    marked = {"type": "text", "text": "Hello, Zoë", "cache_control": {"type": "ephemeral"}}
    image = {"type": "image", "source": {"data": "aGk="}}
    plain = root_of(messages=[{"role": "user", "content": [image]}])
    image["cache_control"] = {"type": "ephemeral"}
    assert root_of(messages=[{"role": "user", "content": [image]}]) == plain
    assert root_of(messages=[{"role": "user", "content": [marked]}]) == root_of(messages=[HELLO])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "assistant"]) | json_values,
        "content": json_values | st.text(),
    }
)


@given(st.lists(messages, max_size=4))
def test_another_spelling_of_the_same_messages_has_the_same_root(chat: list[Any]) -> None:
    def spaced(value: Any) -> str:
        return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)

    assert root_of(messages=chat) == root_of(spaced, messages=chat)


@given(json_values | st.lists(messages, max_size=3), json_values)
def test_any_body_has_a_key(value: Any, other: Any) -> None:
    assert key_of({"messages": value, "metadata": other}).startswith("key-1:")
    assert key_of({"input": value, "instructions": other}).startswith("key-1:")
    assert key_of({"prompt": value}).startswith("key-1:")


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"role":"user","content":1e999}]}',
        b'{"messages":[' + b"[" * 900 + b"]" * 900 + b"]}",
        b'{"messages":[' + b"9" * 5_000 + b"]}",
        b'{"messages":[{"role":"user","content":{"a":' + b"9" * 5_000 + b"}}]}",
        b'{"messages":[' + b"{}," * 100_000 + b"{}]}",
    ],
)
def test_a_body_that_cannot_be_decoded_has_a_key(body: bytes) -> None:
    assert key_of(body) == key_of(body)


def test_metadata_nested_as_deeply_as_the_body_may_be_has_no_user() -> None:
    deep = b'{"user_id":"a","b":' + b"[" * 3_000 + b"]" * 3_000 + b"}"
    fields = Fields(metadata=msgspec.Raw(deep))
    assert targeting_key({}, fields, (), "key-1", b"{}").startswith("key-1:")


def test_requests_without_any_text_are_told_apart_by_their_bodies() -> None:
    one, other = {"tokens": [1, 2]}, {"tokens": [1, 3]}
    assert key_of(one) != key_of(other)
    assert key_of(one) == key_of(dict(one))


def test_a_root_never_changes_its_hash() -> None:
    # Users would move with an upgrade.
    assert root_of(messages=[SYSTEM, HELLO]) == "7d7b31c539ecafd62c12f5379fd1a81b"
