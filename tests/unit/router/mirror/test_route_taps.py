import json

import pytest

from penumbra.router.mirror.route_taps import (
    AnswerTap,
    ResponsesTap,
    is_tapped_id,
    make_tap,
    tapped_id,
)
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.mirror.token_tap import TokenTap
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.engine_wire import Engine

ASKED = {"model": "demo", "input": "hello", "store": False}
HEADERS = b"accept-encoding: gzip\r\nx-a: b\r\n"


def request(path: bytes = b"/v1/responses") -> UpstreamRequest:
    return UpstreamRequest(path, HEADERS, json.dumps(ASKED).encode() + b"\n")


def responses_tap() -> ResponsesTap:
    tap = make_tap("responses", request())
    assert isinstance(tap, ResponsesTap)
    return tap


def sent(tap: TokenTap) -> UpstreamRequest:
    assert tap.request is not None
    return tap.request


def test_a_response_is_asked_for_its_messages_under_an_id_of_the_gateways() -> None:
    asked = sent(responses_tap())
    body = json.loads(asked.body)
    assert is_tapped_id(body.pop("request_id"))
    assert body == ASKED | {"enable_response_messages": True}
    assert asked.headers == b"x-a: b\r\n"


def test_the_client_gets_the_response_that_it_asked_for() -> None:
    tap, engine = responses_tap(), Engine("full")
    tapped = json.loads(sent(tap).body)
    told = engine.answer("/v1/responses", tapped)
    plain = engine.answer("/v1/responses", ASKED | {"request_id": tapped["request_id"]})
    assert tap.whole(told) == plain
    assert tap.answer == told
    assert tap.count_tokens() == len(engine.tokens) + 1


def test_so_it_does_of_a_stream() -> None:
    tap, engine = responses_tap(), Engine("full")
    tapped = json.loads(sent(tap).body)
    told = engine.events("/v1/responses", tapped)
    plain = engine.events("/v1/responses", ASKED | {"request_id": tapped["request_id"]})
    assert [tap.feed(event) for event in told] == plain
    assert tap.rest() == b""
    assert tap.count_tokens() == len(engine.tokens) + 1


def test_another_attempt_begins_anew() -> None:
    tap = responses_tap()
    assert tap.feed(b'{"input_messages":[{"mess') == b'{"input_messages":null'
    tap.restart()
    assert tap.feed(b'{"a":1}') == b'{"a":1}'
    assert tap.answer == b'{"a":1}'


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b"enable_response_messages is not known", True),
        (422, b'extra inputs: "request_id"', True),
        (400, b"too long", False),
        (500, b"enable_response_messages", False),
    ],
)
def test_a_server_that_refuses_the_question_is_asked_the_clients_own(
    status: int, body: bytes, *, expected: bool
) -> None:
    tap = responses_tap()
    assert tap.withdraws(status, body) is expected
    assert (tap.request is None) is expected
    assert tap.lost == (ShedReason.REFUSED if expected else None)


def test_only_ids_of_tapped_responses_are_known_as_such() -> None:
    made = tapped_id()
    assert is_tapped_id(made)
    assert len({tapped_id() for _ in range(100)}) == 100  # nothing that is shown tells them
    for other in ("resp_" + 32 * "a", made[:-1], made + "0", made.upper(), "resp_full"):
        assert not is_tapped_id(other)


def test_a_message_is_passed_on_and_stored() -> None:
    tap = make_tap("messages", request(b"/v1/messages"))
    assert isinstance(tap, AnswerTap)
    assert sent(tap).body == request().body
    assert sent(tap).headers == b"x-a: b\r\n"
    assert tap.feed(b"event: ping\n\n") == b"event: ping\n\n"
    assert tap.answer == b"event: ping\n\n"
    assert not tap.withdraws(400, b"return_token_ids")
    assert tap.count_tokens() is None


@pytest.mark.parametrize("route", ["chat", "completions"])
def test_completions_are_asked_for_token_ids(route: str) -> None:
    tap = make_tap(route, request(b"/v1/completions"))
    assert tap is not None
    assert json.loads(sent(tap).body)["return_token_ids"] is True
    own = UpstreamRequest(b"/v1/completions", b"", b'{"return_token_ids":false}')
    assert make_tap(route, own) is None
