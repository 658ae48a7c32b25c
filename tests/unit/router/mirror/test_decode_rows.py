"""Log-probabilities that only the tap asked for: read by the comparator, unseen by the client."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.mirror import decode_rows
from penumbra.router.mirror.decode_rows import RowsStripper, strip_rows
from penumbra.router.mirror.token_tap import TokenTap, decode_body, tap_body
from penumbra.router.upstream.port import UpstreamRequest
from tests.support import tapped_answers
from tests.support.engine_wire import Engine
from tests.support.requests import CHAT, COMPLETIONS, dumps, request_for
from tests.support.tapped_answers import (
    BLANKS,
    BLANKS_AND_LINES,
    NO_BLANKS,
    as_event,
    decoded_answers,
    seeds,
)

spellings = st.sampled_from([NO_BLANKS, BLANKS, BLANKS_AND_LINES])


@given(decoded_answers(), seeds, spellings)
def test_a_whole_answer_is_restored(
    answer: dict[str, Any], seed: int, blanks: tuple[str, ...]
) -> None:
    tapped = written(answer, seed, blanks, is_tapped=True)
    tap = _tap()
    assert tap.whole(tapped) == written(answer, seed, blanks, is_tapped=False)
    assert tap.answer == tapped


@given(decoded_answers(), seeds, spellings, st.lists(st.integers(0, 3_000)))
def test_an_answer_in_any_pieces_is_restored_as_it_is_in_one(
    answer: dict[str, Any], seed: int, blanks: tuple[str, ...], cuts: list[int]
) -> None:
    tapped = written(answer, seed, blanks, is_tapped=True)
    tap = _tap()
    edges = [0, *sorted(min(cut, len(tapped)) for cut in cuts), len(tapped)]
    pieces = [tapped[start:end] for start, end in itertools.pairwise(edges)]
    out = b"".join(tap.feed(piece) for piece in pieces) + tap.rest()
    assert out == written(answer, seed, blanks, is_tapped=False)


@given(decoded_answers(), seeds, spellings, st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_nothing_of_an_event_waits_for_the_next_one(
    answer: dict[str, Any], seed: int, blanks: tuple[str, ...], line_end: bytes
) -> None:
    tap = _tap()
    tapped = as_event(written(answer, seed, blanks, is_tapped=True), line_end)
    assert tap.feed(tapped) == as_event(written(answer, seed, blanks, is_tapped=False), line_end)
    assert tap.rest() == b""


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("more", [{}, {"n": 2}, {"max_tokens": 4}])
def test_an_engines_answers_are_restored_streamed_and_whole(
    path: str, more: dict[str, Any]
) -> None:
    body = request_for(path, stream=True, stream_options={"include_usage": True}, **more)
    tap = _tap(path, body)
    asked = json.loads(_asked(tap))
    tapped = Engine("full").events(path, asked)
    assert [tap.feed(each) for each in tapped] == Engine("full").events(path, body)
    whole = Engine("full").answer(path, asked)
    assert _tap(path, body).whole(whole) == Engine("full").answer(path, body)


@pytest.mark.parametrize("silent", [(0,), (1, 2), (3,)])
def test_events_that_a_parser_keeps_back_stay_back(silent: tuple[int, ...]) -> None:
    body = request_for(CHAT, stream=True, tools=[{"type": "function"}])
    tap = _tap(CHAT, body)
    engine = Engine("full", silent=silent)
    tapped = engine.events(CHAT, json.loads(_asked(tap)))
    told = b"".join(tap.feed(each) for each in tapped)
    assert told == b"".join(Engine("full", silent=silent).events(CHAT, body))


@pytest.mark.parametrize(
    "lure",
    ['"logprobs":{"content":[]}', '\\"logprobs":{', '","logprobs":{"content":[{"token":"'],
)
def test_what_a_model_writes_is_never_taken_for_log_probabilities(lure: str) -> None:
    data = json.dumps({"text": lure, "logprobs": None}, separators=(",", ":")).encode()
    assert strip_rows(data) == data


def test_the_alternatives_of_another_engine_are_taken_out_as_well() -> None:
    rows = {"content": [{"token": "}", "top_logprobs": [{"token": '"]}', "bytes": [1]}]}]}
    whole = {"choices": [{"finish_reason": "stop", "logprobs": rows}, {"logprobs": rows}]}
    plain = {"choices": [{"finish_reason": "stop", "logprobs": None}, {"logprobs": None}]}
    data = json.dumps(whole, separators=(",", ":")).encode()
    assert strip_rows(data) == json.dumps(plain, separators=(",", ":")).encode()


# Asking


@pytest.mark.parametrize(("path", "ask"), [(CHAT, True), (COMPLETIONS, 0)])
def test_the_chosen_tokens_log_probabilities_are_asked_for(path: str, ask: Any) -> None:
    body = request_for(path)
    asked = json.loads(_asked(_tap(path, body)))
    assert asked == {**body, "logprobs": ask, "return_token_ids": True}


@pytest.mark.parametrize(
    "wish",
    [
        b'"logprobs":true',
        b'"logprobs":false',
        b'"logprobs":null',
        b'"logprobs":0',
        b'"top_logprobs":2',
        b'"log\\u0070robs":true',
        b'"logprob_token_ids":[1]',
    ],
)
def test_a_client_with_a_wish_about_log_probabilities_gets_its_own(wish: bytes) -> None:
    tapped = tap_body(b'{"model":"demo",' + wish + b"}")
    assert tapped is not None
    assert decode_body(CHAT.encode(), tapped) is None


def test_other_routes_are_not_asked() -> None:
    assert decode_body(b"/v1/responses", b'{"a":1,"return_token_ids":true}') is None


def test_an_engine_that_refuses_them_is_tapped_without() -> None:
    body = request_for(CHAT)
    tap = _tap(CHAT, body)
    assert tap.withdraws(400, b'{"error":{"message":"logprobs is not supported"}}')
    assert tap.has_refused_decode
    assert tap.lost is None
    assert json.loads(_asked(tap)) == {**body, "return_token_ids": True}
    own = b'{"logprobs":{"content":[]}}'
    assert tap.whole(own) == own
    assert not tap.withdraws(400, b'{"error":{"message":"logprobs is not supported"}}')


def test_an_engine_that_refuses_the_tap_is_asked_as_the_client_asked() -> None:
    tap = _tap()
    assert tap.withdraws(400, b'{"error":{"message":"return_token_ids, logprobs: extra"}}')
    assert tap.request is None


def written(answer: Any, seed: int, blanks: tuple[str, ...], *, is_tapped: bool) -> bytes:
    return tapped_answers.written(answer, seed, blanks, has_ids=is_tapped, has_rows=is_tapped)


def _tap(path: str = CHAT, body: dict[str, Any] | None = None) -> TokenTap:
    data = dumps(body or request_for(path))
    tapped = tap_body(data)
    assert tapped is not None
    decode = decode_body(path.encode(), tapped)
    assert decode is not None
    return TokenTap(UpstreamRequest(path.encode(), b"", data), tapped, decode=decode)


def _asked(tap: TokenTap) -> bytes:
    assert tap.request is not None
    return tap.request.body


def test_objects_without_an_end_are_looked_for_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[int] = []
    find_end = decode_rows._object_end

    def counted(data: bytes, begin: int) -> int:
        looked_for.append(begin)
        return find_end(data, begin)

    monkeypatch.setattr(decode_rows, "_object_end", counted)
    data = b'"logprobs":{"content":[{"token":"' * 4_000
    assert strip_rows(data) == data
    assert len(looked_for) == 8


def test_many_objects_in_one_piece_are_all_taken_out() -> None:
    many = b'"logprobs":{},' * 20_000
    assert RowsStripper().feed(many) == b'"logprobs":null,' * 20_000
