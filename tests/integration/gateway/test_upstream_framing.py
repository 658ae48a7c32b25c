"""Framing of answers: an engine's bytes never reach the next client."""

import pytest

from tests.support.behaviours import (
    JSON_TYPE,
    LAST_CHUNK,
    STREAM_HEAD,
    chunk,
    full_response,
    gated,
    head,
    raw,
)
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

GOOD = b'{"id":"good","choices":[]}'
EVIL = full_response(200, b'{"id":"evil"}', [JSON_TYPE, ("x-evil", "1")])
DONE_STREAM = STREAM_HEAD + chunk(b"data: {}\n\n") + chunk(b"data: [DONE]\n\n") + LAST_CHUNK


def assert_next_answers_are_good(gateway: GatewayProcess) -> None:
    for _ in range(3):
        response = gateway.post(CHAT, chat())
        assert response.status == 200
        assert b"evil" not in response.body
        assert response.header("x-evil") is None


@pytest.mark.parametrize(
    "extra",
    [EVIL, b"\r\n" + EVIL, b"x", b"\x00", b"HTTP/1.1 ", EVIL * 3, b"0\r\n\r\n"],
    ids=range(7),
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_bytes_after_an_answer_never_reach_a_client(
    gateway: GatewayProcess, full: ScriptedUpstream, extra: bytes, is_stream: bool
) -> None:
    answer = DONE_STREAM if is_stream else full_response(200, GOOD)
    full.next(raw(answer + extra, then=None))
    response = gateway.post(CHAT, chat(stream=is_stream))
    assert response.status == 200
    assert b"evil" not in response.body
    assert_next_answers_are_good(gateway)


def test_connection_with_bytes_after_an_answer_is_not_used_again(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(raw(full_response(200, GOOD) + EVIL, then=None))
    gateway.post(CHAT, chat())
    gateway.post(CHAT, chat())
    first, second = full.requests
    assert first.connection != second.connection
    assert first.disconnected.wait(10)


def test_connection_that_speaks_unasked_is_not_used_again(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gateway.post(CHAT, chat())
    full.send_unasked(EVIL)
    eventually(lambda: full.open_connections == 0, what="the idle connections to be closed")
    assert_next_answers_are_good(gateway)


@pytest.mark.parametrize("claimed", [1, 5, len(GOOD) - 1])
def test_body_longer_than_its_length_never_reaches_the_next_client(
    gateway: GatewayProcess, full: ScriptedUpstream, claimed: int
) -> None:
    wire = head(200, [JSON_TYPE, ("content-length", str(claimed))]) + GOOD + EVIL
    full.next(raw(wire, then=None))
    gateway.post(CHAT, chat())
    assert_next_answers_are_good(gateway)


def test_body_of_an_answer_that_has_none_never_reaches_the_next_client(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(raw(head(204, []) + EVIL, then=None))
    assert gateway.post(CHAT, chat()).status == 204
    assert_next_answers_are_good(gateway)


def test_answer_after_an_interim_one_is_the_only_answer(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(raw(head(100, []) + full_response(200, GOOD) + head(103, []) + EVIL, then=None))
    assert gateway.post(CHAT, chat()).body == GOOD
    assert_next_answers_are_good(gateway)


@pytest.mark.parametrize("is_stream", [False, True])
def test_trailers_are_dropped(
    gateway: GatewayProcess, full: ScriptedUpstream, is_stream: bool
) -> None:
    whole = head(200, [JSON_TYPE, ("transfer-encoding", "chunked")]) + chunk(GOOD) + LAST_CHUNK
    answer = DONE_STREAM if is_stream else whole
    full.next(raw(answer[:-2] + b"x-evil: 1\r\ncontent-type: text/html\r\n\r\n", then=None))
    response = gateway.post(CHAT, chat(stream=is_stream))
    assert response.status == 200
    assert response.header("x-evil") is None
    assert ("content-type", "text/html") not in response.headers
    assert_next_answers_are_good(gateway)


def test_switching_protocols_is_no_answer(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    full.next(raw(head(101, [("upgrade", "x"), ("connection", "upgrade")]) + EVIL, then="hang"))
    assert gateway.post(CHAT, chat()).status == 502
    assert full.wait_for_request().disconnected.wait(10)
    assert_next_answers_are_good(gateway)


AMBIGUOUS: dict[str, bytes] = {
    "two_lengths": head(200, [("content-length", "5"), ("content-length", "26")]) + GOOD,
    "length_and_chunked": head(200, [("content-length", "5"), ("transfer-encoding", "chunked")])
    + chunk(GOOD)
    + LAST_CHUNK,
    "negative_length": head(200, [("content-length", "-1")]) + GOOD,
    "length_overflow": head(200, [("content-length", str(2**64 + 5))]) + GOOD,
    "not_http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": b"\x00" * 300,
    "http_2": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "obs_fold": b"HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}",
    "bare_cr": b"HTTP/1.1 200 OK\r\nx-a: b\rc: d\r\ncontent-length: 2\r\n\r\n{}",
    "nul_in_value": b"HTTP/1.1 200 OK\r\nx-a: b\x00c\r\ncontent-length: 2\r\n\r\n{}",
    "huge_head": head(200, [("x-long", "a" * 1_000_000)]) + b"{}",
    "endless_head": b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 200_000,
    "status_of_four_digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\n{}",
    "no_status": b"HTTP/1.1 OK\r\ncontent-length: 2\r\n\r\n{}",
    "status_below_100": b"HTTP/1.1 099 Odd\r\ncontent-length: 2\r\n\r\n{}",
    "status_above_599": b"HTTP/1.1 600 Odd\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_ambiguous_answer_of_the_baseline_is_no_answer(
    gateway: GatewayProcess, full: ScriptedUpstream, data: bytes
) -> None:
    full.next(raw(data, then="hang"))
    response = gateway.post(CHAT, chat())
    assert (response.status, response.error["code"]) == (502, "upstream_garbage")
    assert full.wait_for_request().disconnected.wait(10)
    assert_next_answers_are_good(gateway)


@pytest.mark.parametrize(
    "frame",
    [b"-1\r\n", b"zz\r\n", b"f" * 17 + b"\r\n", b"5\r\nabcdefgh\r\n", b"\r\n"],
    ids=range(5),
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_broken_chunk_of_the_baseline_never_looks_complete(
    gateway: GatewayProcess, full: ScriptedUpstream, frame: bytes, is_stream: bool
) -> None:
    kind = "text/event-stream" if is_stream else "application/json"
    start = head(200, [("content-type", kind), ("transfer-encoding", "chunked")])
    full.next(raw(start + chunk(b'{"id":') + frame, then="hang"))
    assert not looks_complete(gateway, is_stream=is_stream)
    assert_next_answers_are_good(gateway)


@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_truncated_body_of_the_baseline_never_looks_complete(
    gateway: GatewayProcess, full: ScriptedUpstream, framing: str, end: str
) -> None:
    length = ("content-length", "100")
    how = length if framing == "length" else ("transfer-encoding", "chunked")
    body = GOOD if framing == "length" else chunk(GOOD)
    full.next(raw(head(200, [JSON_TYPE, how]) + body, then="rst" if end == "rst" else "fin"))
    assert not looks_complete(gateway, is_stream=False)


def looks_complete(gateway: GatewayProcess, *, is_stream: bool) -> bool:
    """Whether the client takes the answer for a whole, successful one."""
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat(stream=is_stream)))
        try:
            response = client.read_response()
        except AssertionError:
            return False
    return response.status == 200


def test_answer_that_comes_before_the_request_is_whole_poisons_nothing(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate = full.gate()
    full.next(gated(full_response(200, GOOD), gate))
    first = gateway.post(CHAT, chat())
    gate.open()
    assert first.body == GOOD
    assert_next_answers_are_good(gateway)
