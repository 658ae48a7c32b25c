import msgspec
import pytest

from penumbra.router.gateway.large_body import read_request
from penumbra.router.mirror.comparable import LONGEST_BODY_BYTES, is_comparable
from penumbra.router.mirror.token_tap import tap_body


def asks(route: str, fields: str) -> bool:
    body = b'{"model":"demo"%b}' % fields.encode()
    return is_comparable(route, read_request(body), body)


@pytest.mark.parametrize("route", ["chat", "completions"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", True),
        (',"n":2,"logprobs":true', True),
        (',"echo":false,"use_beam_search":false,"kv_transfer_params":null', True),
        (',"return_token_ids":true', False),
        (',"return_token_ids":false', False),
        (',"return_token_ids":null', False),
        (',"echo":true', False),
        (',"return_prompt_text":true', False),
        (',"kv_transfer_params":{"a":1}', False),
        (',"use_beam_search":true', False),
        (',"prompt_embeds":"AAAA"', False),
    ],
)
def test_what_no_tap_asks_more_of_is_not_comparable(
    route: str, fields: str, *, expected: bool
) -> None:
    assert asks(route, fields) is expected
    if expected:
        assert tap_body(b'{"model":"demo"%b}' % fields.encode()) is not None


def test_a_body_that_is_too_long_to_be_tapped_is_not_comparable() -> None:
    body = msgspec.json.encode({"model": "demo", "prompt": "x" * LONGEST_BODY_BYTES})
    assert not is_comparable("completions", read_request(body), body)
    assert tap_body(body) is None


@pytest.mark.parametrize("route", ["embeddings", "transcriptions", "tokenize", "other"])
def test_other_routes_are_not_comparable(route: str) -> None:
    assert not asks(route, "")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (',"input":"hello"', True),
        (',"input":"caf\\u00e9"', True),
        (',"input":"what is \\"input_messages\\" or new_messages?"', True),
        (',"input":"hello","background":false,"previous_response_id":null', True),
        (',"input":"hello","previous_response_id":"resp_1"', False),
        (',"input":"hello","background":true', False),
        (',"input":"hello","enable_response_messages":false', False),
        (',"input":"hello","request_id":"mine"', False),
        (',"input":"hello","kv_transfer_params":{"a":1}', False),
        (',"tools":[{"parameters":{"default":{"input_messages":[1]}}}]', False),
        (',"tools":[{"parameters":{"default":{"input\\u005fmessages":[1]}}}]', False),
    ],
)
def test_a_response_is_comparable_unless_its_answer_could_not_be_told_apart(
    fields: str, *, expected: bool
) -> None:
    assert asks("responses", fields) is expected


def test_a_message_is_comparable() -> None:
    assert asks("messages", ',"max_tokens":5,"messages":[]')
