import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.mirror.response_messages import MessagesStripper, strip_messages

LURES = (
    '"output_messages":[1]', '{"input_messages":[{"tokens":[3]}]}', '\\"input_messages\\":[',
    '"', "\\", "]", "[", "}", '","output_messages":[', 'put_messages"', "data: ", "\n\n", "null",
)  # fmt: skip
texts = st.lists(st.sampled_from(LURES) | st.text(max_size=6), max_size=6).map("".join)
ids = st.lists(st.integers(0, 200_000), max_size=6)


@st.composite
def responses(draw: st.DrawFn) -> dict[str, Any]:
    part = {"type": "output_text", "text": draw(texts), "annotations": []}
    call = {"type": "function_call", "name": draw(texts), "arguments": draw(texts)}
    schema = {"type": "object", "default": {draw(st.text(max_size=3)): ["["]}}
    raw = st.builds(
        lambda text, tokens: {"message": text, "tokens": tokens, "type": "raw_message_tokens"},
        texts,
        ids,
    )
    return {
        "id": "resp_1",
        "instructions": draw(texts),
        "output": [{"type": "message", "content": [part]}, call],
        "tools": [{"type": "function", "name": "f", "parameters": schema}],
        "input_messages": draw(st.lists(raw, min_size=1, max_size=2)),
        "output_messages": draw(st.lists(raw, min_size=1, max_size=2)),
    }


def spelled(response: dict[str, Any], *, blanks: bool) -> tuple[bytes, bytes]:
    """A response as the engine sends it, and as it sends it to one who asks for no token ids."""
    silent = {**response, "input_messages": None, "output_messages": None}
    separators = (" , ", " : ") if blanks else (",", ":")
    told, plain = (
        json.dumps(value, separators=separators, ensure_ascii=False).encode()
        for value in (response, silent)
    )
    return told, plain


@given(responses(), st.booleans())
def test_a_whole_response_is_what_it_would_have_been(
    response: dict[str, Any], blanks: bool
) -> None:
    told, plain = spelled(response, blanks=blanks)
    assert strip_messages(told) == plain
    assert strip_messages(plain) == plain


@given(responses(), st.data())
def test_an_answer_may_come_in_any_pieces(response: dict[str, Any], data: st.DataObject) -> None:
    told, plain = spelled(response, blanks=False)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(told)), max_size=20)))
    pieces = [told[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(told)])]
    stripper = MessagesStripper()
    found = b"".join(stripper.feed(piece) for piece in pieces) + stripper.rest()
    assert found == plain


def test_byte_by_byte_is_the_same() -> None:
    told = b'{"a":"\\"input_messages\\"","input_messages":[{"message":"[\\"]","tokens":[1]}]}'
    stripper = MessagesStripper()
    found = b"".join(stripper.feed(told[at : at + 1]) for at in range(len(told)))
    assert found + stripper.rest() == b'{"a":"\\"input_messages\\"","input_messages":null}'


@pytest.mark.parametrize(
    "event",
    [
        b'event: response.output_text.delta\ndata: {"delta":"hello"}\n\n',
        b'data: {"type":"response.created","response":{"input_messages":null}}\n\n',
        b'data: {"delta":"say \\"output_messages\\":[1]"}\n\n',
        b": comment\n\n",
    ],
)
def test_an_event_without_token_ids_passes_at_once(event: bytes) -> None:
    stripper = MessagesStripper()
    assert stripper.feed(event) == event
    assert stripper.rest() == b""
