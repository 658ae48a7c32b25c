"""Token ids are taken out of an engine's bytes, whatever their spelling, and nothing else is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.mirror.token_ids import strip
from tests.support.engine_wire import DONE, Engine, encode, event
from tests.support.requests import CHAT, request_for
from tests.support.tapped_answers import (
    BLANKS_AND_LINES,
    NO_BLANKS,
    answers,
    as_event,
    deltas,
    is_silent,
    seeds,
    texts,
    written,
)

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
spellings = st.sampled_from([NO_BLANKS, BLANKS_AND_LINES])


@given(answers(), seeds, spellings)
def test_strip_restores_what_an_engine_writes_without_token_ids(
    answer: dict[str, Any], seed: int, blanks: tuple[str, ...]
) -> None:
    tapped = written(answer, seed, blanks, has_ids=True)
    assert strip(tapped) == written(answer, seed, blanks, has_ids=False)


@given(st.lists(deltas(), max_size=4), seeds, spellings, line_ends, st.sampled_from([b"", b" "]))
def test_strip_restores_the_events_of_a_stream(
    stream: list[dict[str, Any]],
    seed: int,
    blanks: tuple[str, ...],
    line_end: bytes,
    after_colon: bytes,
) -> None:
    def events(*, has_ids: bool) -> list[bytes]:
        return [
            as_event(written(delta, seed, blanks, has_ids=has_ids), line_end, after_colon)
            for delta in stream
            if has_ids or not is_silent(delta)
        ]

    assert strip(b"".join(events(has_ids=True))) == b"".join(events(has_ids=False))
    each = [strip(piece) for piece in events(has_ids=True)]
    assert [piece for piece in each if piece] == events(has_ids=False)


@pytest.mark.parametrize(
    ("tapped", "plain"),
    [
        (b'{"token_ids" : [ 1, 2 ]}', b'{"token_ids" : null}'),
        (b'{ "token_ids":[ ]}', b'{ "token_ids":null}'),
        (b'{\r\n\t"prompt_token_ids"\r\n:\r\n[\r\n1\r\n]\r\n}', None),
        (b'{"a":"token_ids","b":[1]}', b'{"a":"token_ids","b":[1]}'),
        (b'{"my_token_ids": [1]}', b'{"my_token_ids": [1]}'),
        (b'{"token_ids": null,"b":[1]}', b'{"token_ids": null,"b":[1]}'),
        (b'{"token_ids" :"x","b":[1]}', b'{"token_ids" :"x","b":[1]}'),
    ],
)
def test_only_arrays_of_these_keys_become_null(tapped: bytes, plain: bytes | None) -> None:
    if plain is None:
        plain = b'{\r\n\t"prompt_token_ids"\r\n:\r\nnull\r\n}'
    assert strip(tapped) == plain


@given(st.dictionaries(texts, texts | st.dictionaries(texts, st.floats(-9, 0)), max_size=4))
def test_strip_changes_no_answer_without_token_ids(value: dict[str, Any]) -> None:
    # Keys too are a model's words here, as in completions' `top_logprobs`.
    assert strip(encode({"a": 1, **value})) == encode({"a": 1, **value})


def test_events_that_the_engine_would_have_held_back_are_removed() -> None:
    body = request_for(CHAT, stream=True, tools=[{"type": "function"}])
    tapped = Engine("full", silent=(1, 2, 5)).events(CHAT, {**body, "return_token_ids": True})
    plain = Engine("full", silent=(1, 2, 5)).events(CHAT, body)
    assert len(plain) == len(tapped) - 3

    assert strip(b"".join(tapped)) == b"".join(plain)
    each = [strip(piece) for piece in tapped]
    assert [piece for piece in each if piece] == plain


def test_an_empty_delta_that_ends_its_choice_stays() -> None:
    end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
    data = event({"choices": [{**end, "stop_reason": None, "token_ids": [5]}]})
    assert strip(data) == event({"choices": [{**end, "stop_reason": None, "token_ids": None}]})


def test_done_and_comments_pass() -> None:
    assert strip(DONE) == DONE
    assert strip(b": ping\n\n") == b": ping\n\n"
