"""Tapped answers: asked for with token ids, and without them for the client."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.mirror.token_tap import TokenTap, tap_body
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.engine_wire import DONE, Engine, event
from tests.support.requests import CHAT, COMPLETIONS, MESSAGES, dumps, request_for
from tests.support.tapped_answers import (
    BLANKS_AND_LINES,
    NO_BLANKS,
    answers,
    as_event,
    seeds,
    texts,
    written,
)


@given(
    answers(),
    seeds,
    st.sampled_from([NO_BLANKS, BLANKS_AND_LINES]),
    st.lists(st.integers(0, 2_000)),
)
def test_an_answer_in_any_pieces_is_stripped_as_it_is_in_one(
    answer: dict[str, Any], seed: int, blanks: tuple[str, ...], cuts: list[int]
) -> None:
    tapped = written(answer, seed, blanks, has_ids=True)
    tap = _tap()
    edges = [0, *sorted(min(cut, len(tapped)) for cut in cuts), len(tapped)]
    pieces = [tapped[start:end] for start, end in itertools.pairwise(edges)]

    out = b"".join(tap.feed(piece) for piece in pieces) + tap.rest()

    assert out == written(answer, seed, blanks, has_ids=False)
    assert tap.answer == tapped


@given(answers(), seeds, st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_nothing_of_an_event_waits_for_the_next_one(
    answer: dict[str, Any], seed: int, line_end: bytes
) -> None:
    tap = _tap()
    for blanks in (NO_BLANKS, BLANKS_AND_LINES):
        tapped = as_event(written(answer, seed, blanks, has_ids=True), line_end)
        plain = as_event(written(answer, seed, blanks, has_ids=False), line_end)
        assert tap.feed(tapped) == plain
    assert tap.rest() == b""


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("more", [{}, {"n": 2}, {"logprobs": 1}, {"max_tokens": 4}])
def test_a_stream_is_stripped_event_by_event(path: str, more: dict[str, Any]) -> None:
    body = request_for(path, stream=True, stream_options={"include_usage": True}, **more)
    tapped = Engine("full").events(path, {**body, "return_token_ids": True})
    tap = _tap()
    assert [tap.feed(each) for each in tapped] == Engine("full").events(path, body)
    assert tap.answer == b"".join(tapped)


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


def test_a_body_that_takes_long_to_read_is_not_tapped() -> None:
    text = b"x" * (4 * 1024 * 1024 - 100)
    assert tap_body(b'{"model":"demo","x":"' + text + b'"}') is not None
    assert tap_body(b'{"model":"demo","x":"' + text * 2 + b'"}') is None


def _tap(**more: Any) -> TokenTap:
    body = dumps({"model": "demo", "messages": MESSAGES})
    tapped = tap_body(body)
    assert tapped is not None
    return TokenTap(UpstreamRequest(CHAT.encode(), b"", body), tapped, **more)


@pytest.mark.parametrize(
    ("status", "body", "withdraws"),
    [
        (400, b'{"error":{"message":"logprobs is not supported"}}', True),
        (400, b'{"error":{"message":"max_tokens is too large"}}', False),
        (500, b'{"error":{"message":"out of luck"}}', True),
        (502, b"<html>", True),
        (200, b'{"choices":[{"text":"logprobs"}]}', False),
    ],
)
def test_a_failure_that_log_probabilities_may_have_caused_is_asked_without_them(
    status: int, body: bytes, withdraws: bool
) -> None:
    tapped = b'{"return_token_ids":true}'
    request = UpstreamRequest(CHAT.encode(), b"", b"{}")
    tap = TokenTap(request, tapped, decode=b'{"logprobs":true,"return_token_ids":true}')
    assert tap.asks_for_rows
    assert tap.withdraws(status, body) is withdraws
    assert tap.request is not None
    assert (tap.request.body == tapped, tap.asks_for_rows) == (withdraws, not withdraws)
    assert not tap.withdraws(500, body) or not withdraws
