"""Failover: the baseline answers for a candidate that fails before its client has seen anything."""

from typing import Any

import pytest

from tests.integration.gateway.conftest import FAILOVER_LIMITS, failover_models
from tests.support.behaviours import (
    JSON_TYPE,
    STREAM_HEAD,
    STREAM_TYPE,
    chunk,
    close_before_head,
    error_event,
    hang,
    head,
    raw,
    respond,
    stream_of,
)
from tests.support.engine_wire import DONE, TEXT, engine_error
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, StreamView, chat
from tests.support.scripted_connection import Behaviour
from tests.support.scripted_upstream import ScriptedUpstream

HTML = b"<html><body><h1>Not Found</h1></body></html>"
HTML_TYPE = ("content-type", "text/html")


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return FAILOVER_LIMITS


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    return failover_models(full, int8)


@pytest.fixture(scope="module", autouse=True)
def _answered_before(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    """The candidate has answered on this route before, so it does not lack the route."""
    del full
    assert gateway.post(CHAT, chat()).header("x-penumbra-variant") == "int8"


# A connection that was kept may have been closed by its server for reasons of its own.
CLOSED = {"refused", "gateway_limit"}

BEFORE_HEAD: dict[str, tuple[Behaviour, set[str]]] = {
    "closes": (close_before_head(), CLOSED),
    "resets": (close_before_head("rst"), CLOSED),
    "hangs": (hang(), {"timeout"}),
    "hangs_in_the_head": (raw(b"HTTP/1.1 200 OK\r\ncontent-", then="hang"), {"timeout"}),
    "closes_in_the_head": (raw(b"HTTP/1.1 200 OK\r\ncontent-"), {*CLOSED, "garbage", "died"}),
    "says_500": (respond(500, engine_error("boom", 500)), {"server_error"}),
    "says_500_in_html": (respond(500, HTML, [HTML_TYPE]), {"server_error"}),
    "says_502": (respond(502, HTML, [HTML_TYPE]), {"server_error"}),
    "says_503": (respond(503, b"", []), {"server_error"}),
    "says_504": (respond(504, HTML, [HTML_TYPE]), {"server_error"}),
    "says_500_and_hangs": (
        raw(head(500, [("content-length", "9")]), then="hang"),
        {"server_error"},
    ),
    "lacks_the_route": (respond(404, b'{"detail":"Not Found"}'), {"rejected"}),
    "proxy_says_404": (respond(404, HTML, [HTML_TYPE]), {"rejected"}),
    "proxy_says_403": (respond(403, b"", []), {"rejected"}),
    "not_http": (raw(b"\x15\x03\x01\x00\x02\x02\x46"), {"garbage"}),
    "not_http_and_open": (raw(b"hello there\r\n\r\n", then="hang"), {"garbage"}),
    "two_lengths": (
        raw(head(200, [("content-length", "2"), ("content-length", "3")]) + b"{}x", then="hang"),
        {"garbage"},
    ),
    "huge_head": (raw(head(200, [("x-long", "a" * 1_000_000)]), then="hang"), {"garbage"}),
    "switches_protocols": (raw(head(101, [("upgrade", "x")]), then="hang"), {"garbage"}),
}

UNARY_BODY: dict[str, tuple[Behaviour, set[str]]] = {
    "dies_in_the_body": (
        raw(head(200, [JSON_TYPE, ("content-length", "99")]) + b'{"id":"x"'),
        {"died"},
    ),
    "resets_in_the_body": (
        raw(head(200, [JSON_TYPE, ("content-length", "99")]) + b'{"id":"x"', then="rst"),
        {"died"},
    ),
    "hangs_in_the_body": (
        raw(head(200, [JSON_TYPE, ("content-length", "99")]) + b'{"id":"x"', then="hang"),
        {"timeout"},
    ),
    "hangs_after_the_head": (
        raw(head(200, [JSON_TYPE, ("content-length", "99")]), then="hang"),
        {"timeout"},
    ),
    "dies_between_chunks": (
        raw(head(200, [JSON_TYPE, ("transfer-encoding", "chunked")]) + chunk(b'{"id":')),
        {"died"},
    ),
    "breaks_a_chunk": (
        raw(head(200, [JSON_TYPE, ("transfer-encoding", "chunked")]) + chunk(b'{"i') + b"zz\r\n"),
        {"died", "garbage"},
    ),
}

FIRST_EVENT: dict[str, tuple[Behaviour, set[str]]] = {
    "head_and_hangs": (raw(STREAM_HEAD, then="hang"), {"timeout"}),
    "head_and_closes": (raw(STREAM_HEAD), {"died"}),
    "head_and_ends": (stream_of(), {"garbage", "died"}),
    "part_of_an_event_and_hangs": (raw(STREAM_HEAD + chunk(b"data: {"), then="hang"), {"timeout"}),
    "part_of_an_event_and_closes": (raw(STREAM_HEAD + chunk(b"data: {}\n")), {"died"}),
    "part_of_an_event_and_ends": (stream_of(b'data: {"id":'), {"garbage", "died"}),
    "only_a_comment": (stream_of(b": ping\n\n"), {"garbage", "died"}),
    "comment_and_hangs": (stream_of(b": ping\n\n", end="hang"), {"timeout"}),
    "text": (stream_of(b"data: oops\n\n", DONE), {"garbage"}),
    "number": (stream_of(b"data: 1\n\n", DONE), {"garbage"}),
    "array": (stream_of(b'data: [{"id":1}]\n\n', DONE), {"garbage"}),
    "null": (stream_of(b"data: null\n\n", DONE), {"garbage"}),
    "truncated": (stream_of(b'data: {"id":\n\n', DONE), {"garbage"}),
    "bad_utf8": (stream_of(b'data: {"id":"\xff\xfe"}\n\n', DONE), {"garbage"}),
    "error": (stream_of(error_event(), DONE), {"server_error"}),
    "error_and_closes": (stream_of(error_event(), end="fin"), {"server_error"}),
    "error_spelt_with_blanks": (
        stream_of(b'data: { "error" : {"message":"x"} }\n\n', DONE),
        {"server_error", "garbage"},
    ),
    "error_after_a_comment": (stream_of(b": ping\n\n" + error_event(), DONE), {"server_error"}),
    "error_in_two_chunks": (stream_of(error_event()[:9], error_event()[9:]), {"server_error"}),
    "done_at_once": (stream_of(DONE), {"garbage", "died"}),
    "html_as_a_stream": (stream_of(HTML), {"garbage", "died"}),
}


def assert_failed_over(response: RawResponse, outcomes: set[str]) -> None:
    assert response.status == 200
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-reason") == "SPLIT"
    assert response.header("x-penumbra-failover") in outcomes


@pytest.mark.parametrize("name", [*BEFORE_HEAD, *UNARY_BODY])
def test_unary_answer_comes_from_the_baseline_when_the_candidate(
    gateway: GatewayProcess, int8: ScriptedUpstream, name: str
) -> None:
    behaviour, outcomes = (BEFORE_HEAD | UNARY_BODY)[name]
    int8.always(behaviour)
    response = gateway.post(CHAT, chat())
    assert_failed_over(response, outcomes)
    answer = response.json()
    assert answer["id"].startswith("chatcmpl-full-")
    assert answer["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("name", [*BEFORE_HEAD, *FIRST_EVENT])
def test_stream_comes_from_the_baseline_when_the_candidate(
    gateway: GatewayProcess, int8: ScriptedUpstream, name: str
) -> None:
    behaviour, outcomes = (BEFORE_HEAD | FIRST_EVENT)[name]
    int8.always(behaviour)
    response = gateway.post(CHAT, chat(stream=True))
    assert_failed_over(response, outcomes)
    view = StreamView.of(response)
    assert (view.text, view.finish_reasons, view.done_count) == (TEXT, ["stop"], 1)
    assert view.errors == []
    assert response.header("content-type") == STREAM_TYPE[1]


def test_answer_comes_from_the_baseline_when_the_candidate_refuses(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    with int8.refusing():
        assert_failed_over(gateway.post(CHAT, chat()), {"refused"})


@pytest.mark.parametrize("name", ["hangs", "says_500", "lacks_the_route", "not_http"])
def test_failure_is_counted_by_its_outcome(
    gateway: GatewayProcess, int8: ScriptedUpstream, name: str
) -> None:
    behaviour, (outcome,) = BEFORE_HEAD[name]
    int8.always(behaviour)
    with counting(gateway, "penumbra_failovers_total", from_variant="int8", outcome=outcome):
        gateway.post(CHAT, chat(stream=True))
