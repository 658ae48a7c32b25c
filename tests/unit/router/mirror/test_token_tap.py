"""Tapped answers: asked for with token ids, and without them for the client."""

import copy
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.mirror.token_tap import TokenTap, strip, tap_body
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.engine_wire import DONE, Engine, encode, event
from tests.support.requests import CHAT, COMPLETIONS, MESSAGES, dumps, request_for

LURES = (
    '"token_ids":[1,2]', ',"token_ids":[1]', '{"prompt_token_ids":[3]', '\\"token_ids\\":[1]',
    '"', "\\", '","token_ids":[7],"x":"', '"delta":{},"logprobs":null,"finish_reason":null,',
    'token_ids":[', "]", "},{",
)  # fmt: skip
texts = st.lists(st.sampled_from(LURES) | st.text(max_size=6), max_size=5).map("".join)
ids = st.lists(st.integers(0, 200_000), max_size=6)


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """One answer with token ids, and the same without."""
    call = {"name": draw(texts), "arguments": draw(texts)}
    message = {"content": draw(texts), "tool_calls": [{"id": draw(texts), "function": call}]}
    rows = {"tokens": [draw(texts)], "top_logprobs": [{draw(texts): -0.5, draw(texts): -1.0}]}
    choice = {"index": 0, "message": message, "logprobs": rows, "finish_reason": "stop"}
    tapped = {
        "id": "x",
        "choices": [{**choice, "token_ids": draw(ids)}, {"token_ids": draw(ids), **choice}],
        "prompt_token_ids": draw(ids),
        "usage": {"prompt_tokens": 3},
    }
    plain = copy.deepcopy(tapped)
    plain["prompt_token_ids"] = None
    for each in plain["choices"]:
        each["token_ids"] = None
    return tapped, plain


@given(answers())
def test_strip_restores_what_an_engine_writes_without_token_ids(
    answer: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    tapped, plain = answer
    assert strip(encode(tapped)) == encode(plain)
    assert strip(event(tapped)) == event(plain)


@given(st.dictionaries(texts, texts | st.dictionaries(texts, st.floats(-9, 0)), max_size=4))
def test_strip_changes_no_answer_without_token_ids(value: dict[str, Any]) -> None:
    # Keys too are a model's words here, as in completions' `top_logprobs`.
    assert strip(encode({"a": 1, **value})) == encode({"a": 1, **value})


@given(answers(), st.lists(st.integers(0, 2_000), max_size=8))
def test_an_answer_in_any_pieces_is_stripped_as_it_is_in_one(
    answer: tuple[dict[str, Any], dict[str, Any]], cuts: list[int]
) -> None:
    tapped, plain = encode(answer[0]), encode(answer[1])
    tap = _tap()
    edges = [0, *sorted(min(cut, len(tapped)) for cut in cuts), len(tapped)]
    pieces = [tapped[start:end] for start, end in itertools.pairwise(edges)]

    out = b"".join(tap.feed(piece) for piece in pieces) + tap.rest()

    assert out == plain
    assert tap.answer == tapped


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("more", [{}, {"n": 2}, {"logprobs": 1}, {"max_tokens": 4}])
def test_a_stream_is_stripped_event_by_event(path: str, more: dict[str, Any]) -> None:
    body = request_for(path, stream=True, stream_options={"include_usage": True}, **more)
    tapped = Engine("full").events(path, {**body, "return_token_ids": True})
    tap = _tap()
    assert [tap.feed(each) for each in tapped] == Engine("full").events(path, body)
    assert tap.answer == b"".join(tapped)


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


# Asking


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name not in ("echo", "use_beam_search")),
        st.none() | st.booleans() | texts | st.integers(-5, 5),
        min_size=1,
    ),
    st.sampled_from(["", " ", "\n", " \r\n\t"]),
    st.booleans(),
)
def test_tap_body_adds_one_field_and_changes_no_other(
    body: dict[str, Any], tail: str, is_ascii: bool
) -> None:
    data = (json.dumps(body, ensure_ascii=is_ascii) + tail).encode()
    tapped = tap_body(data)
    assert tapped is not None
    assert json.loads(tapped) == {**body, "return_token_ids": True}
    assert tapped.startswith(data.rstrip()[:-1])


@pytest.mark.parametrize(
    "wish",
    [
        b'"return_token_ids":true',
        b'"return_token_ids":false',
        b'"return_token_ids":null',
        b'"return_token_ids" : false, "return_token_ids": true',
        b'"return\\u005ftoken_ids":false',
        b'"echo":true',
        b'"return_prompt_text":true',
        b'"kv_transfer_params":{"a":1}',
        b'"use_beam_search":true',
    ],
)
def test_a_client_with_a_wish_that_token_ids_interfere_with_is_not_tapped(wish: bytes) -> None:
    assert tap_body(b'{"model":"demo",' + wish + b"}") is None


@pytest.mark.parametrize("body", [b'{"echo":false}', b'{"prompt":"return_token_ids"}'])
def test_a_client_without_one_is_tapped(body: bytes) -> None:
    assert tap_body(body) is not None


def test_a_body_that_is_no_json_is_not_tapped() -> None:
    assert tap_body(b'{"model":"demo"') is None


# Keeping


def test_of_an_answer_over_the_limit_nothing_is_kept_and_it_is_stripped_all_the_same() -> None:
    tap = _tap(limit_bytes=100)
    events = [event({"choices": [{"text": "x" * 30, "token_ids": [n]}]}) for n in range(4)]
    out = [tap.feed(each) for each in events]
    assert b"[" not in b"".join(out).replace(b'"choices":[', b"")
    assert (tap.lost, tap.answer) == ("too_large", b"")


def test_what_a_failed_attempt_said_is_forgotten() -> None:
    tap = _tap()
    tap.feed(event({"choices": []}))
    tap.restart()
    tap.feed(DONE)
    assert tap.answer == DONE


def test_the_first_reason_to_lose_an_answer_counts() -> None:
    tap = _tap()
    tap.lose(ShedReason.ERROR)
    tap.lose(ShedReason.CLIENT_GONE)
    tap.feed(DONE)
    assert (tap.lost, tap.answer) == ("error", b"")


@pytest.mark.parametrize(
    ("status", "body", "withdraws"),
    [
        (400, b'{"error":{"message":"extra fields: return_token_ids"}}', True),
        (422, b'{"detail":[{"input":{"return_token_ids":true}}]}', True),
        (400, b'{"error":{"message":"max_tokens is too large"}}', False),
        (500, b'{"error":{"message":"return_token_ids"}}', False),
        (200, b'{"choices":[{"text":"return_token_ids"}]}', False),
    ],
)
def test_only_a_refusal_that_speaks_of_the_tap_withdraws_it(
    status: int, body: bytes, withdraws: bool
) -> None:
    tap = _tap()
    assert tap.withdraws(status, body) is withdraws
    assert (tap.request is None) is withdraws
    assert tap.lost == ("refused" if withdraws else None)


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (b"accept: */*\r\naccept-encoding: gzip, br\r\nx: 1\r\n", b"accept: */*\r\nx: 1\r\n"),
        (b"accept-encoding: gzip\r\n", b""),
        (b"x-accept-encoding: gzip\r\nx: accept-encoding: a\r\n", None),
        (b"", None),
    ],
)
def test_a_tapped_answer_must_not_be_compressed(sent: bytes, wanted: bytes | None) -> None:
    # Token ids cannot be taken out of bytes that cannot be read.
    tap = TokenTap(UpstreamRequest(b"/v1/completions", sent, b"{}"), b"{}")
    assert tap.request is not None
    assert tap.request.headers == (sent if wanted is None else wanted)


def _tap(**more: Any) -> TokenTap:
    body = dumps({"model": "demo", "messages": MESSAGES})
    tapped = tap_body(body)
    assert tapped is not None
    return TokenTap(UpstreamRequest(CHAT.encode(), b"", body), tapped, **more)
