"""Pipelining: requests sent before earlier answers are answered one by one, in order."""

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import engine
from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import RawClient, RawResponse, request_bytes
from tests.support.requests import CHAT, StreamView, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

BAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n"


def hot(number: int, *, stream: bool = False) -> bytes:
    body = dumps(chat(stream=stream, user=f"u{number}"))
    return request_bytes(CHAT, body, {"x-request-id": f"id-{number}"})


def other(number: int) -> bytes:
    path = ("/health", "/v1/models", "/nope")[number % 3]
    return request_bytes(path, headers={"x-request-id": f"id-{number}"}, method="GET")


def identities(responses: list[RawResponse]) -> list[str | None]:
    return [response.header("x-request-id") for response in responses]


def read(client: RawClient, count: int) -> list[RawResponse]:
    return [client.read_response() for _ in range(count)]


@pytest.mark.parametrize("count", [2, 10, 50])
def test_pipelined_requests_are_answered_in_order(
    gateway: GatewayProcess, full: ScriptedUpstream, count: int
) -> None:
    with gateway.connect() as client:
        client.send(b"".join(hot(number) for number in range(count)))
        responses = read(client, count)
    assert [response.status for response in responses] == [200] * count
    assert identities(responses) == [f"id-{number}" for number in range(count)]
    assert len(full.requests) == count


@pytest.mark.parametrize("count", [2, 10, 50])
def test_pipelined_requests_of_all_routes_are_answered_in_order(
    gateway: GatewayProcess, count: int
) -> None:
    requests = [hot(n, stream=n % 4 == 0) if n % 2 == 0 else other(n) for n in range(count)]
    with gateway.connect() as client:
        client.send(b"".join(requests))
        responses = read(client, count)
    assert identities(responses) == [f"id-{number}" for number in range(count)]


@pytest.mark.parametrize("count", [3, 21])
def test_pipelined_requests_that_begin_with_another_route_are_answered_in_order(
    gateway: GatewayProcess, count: int
) -> None:
    requests = [other(n) if n % 2 == 0 else hot(n) for n in range(count)]
    with gateway.connect() as client:
        client.send(b"".join(requests))
        assert identities(read(client, count)) == [f"id-{number}" for number in range(count)]


def test_pipelined_requests_in_small_pieces_are_answered_in_order(
    gateway: GatewayProcess,
) -> None:
    data = b"".join(hot(n) if n % 2 else other(n) for n in range(10))
    with gateway.connect() as client:
        for start in range(0, len(data), 37):
            client.send(data[start : start + 37])
        assert identities(read(client, 10)) == [f"id-{number}" for number in range(10)]


def test_pipelined_answer_waits_for_a_slow_one_before_it(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate = full.gate()
    full.next(engine(FULL, gate=gate))
    with gateway.connect(timeout=0.3) as client:
        client.send(hot(0) + hot(1) + other(2))
        assert gate.reached.wait(30)
        with pytest.raises(TimeoutError):
            client.read_response()
        client.socket.settimeout(30)
        gate.open()
        assert identities(read(client, 3)) == ["id-0", "id-1", "id-2"]


def test_pipelined_stream_is_whole_before_the_next_answer(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(hot(0, stream=True) + hot(1, stream=True))
        views = [StreamView.of(response) for response in read(client, 2)]
    assert [view.done_count for view in views] == [1, 1]
    assert views[0].text == views[1].text


def test_pipelined_bodies_stay_apart(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    with gateway.connect() as client:
        client.send(b"".join(hot(number) for number in range(20)))
        read(client, 20)
    sent = [dumps(chat(stream=False, user=f"u{number}")) for number in range(20)]
    assert [request.body for request in full.requests] == sent


@pytest.mark.parametrize("good", [0, 1, 5])
def test_bad_request_in_a_pipeline_ends_it_after_the_good_answers(
    gateway: GatewayProcess, full: ScriptedUpstream, good: int
) -> None:
    with gateway.connect() as client:
        client.send(b"".join(hot(n) for n in range(good)) + BAD + hot(98) + hot(99))
        responses = client.read_responses_to_eof()
    assert [response.status for response in responses] == [200] * good + [400]
    assert len(full.requests) == good


def test_bad_request_in_a_pipeline_waits_for_a_slow_answer(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate = full.gate()
    full.next(engine(FULL, gate=gate))
    with gateway.connect() as client:
        client.send(hot(0) + BAD + hot(1))
        assert gate.reached.wait(30)
        gate.open()
        responses = client.read_responses_to_eof()
    assert [response.status for response in responses] == [200, 400]
    assert len(full.requests) == 1


def test_refused_body_in_a_pipeline_keeps_its_place(gateway: GatewayProcess) -> None:
    refused = request_bytes(CHAT, b"{", {"x-request-id": "id-1"})
    with gateway.connect() as client:
        client.send(hot(0) + refused + hot(2))
        responses = read(client, 3)
    assert [response.status for response in responses] == [200, 400, 200]
    assert identities(responses) == ["id-0", "id-1", "id-2"]


def test_request_after_connection_close_is_not_executed(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    last = request_bytes(CHAT, dumps(chat()), {"connection": "close"})
    with gateway.connect() as client:
        client.send(hot(0) + last + hot(2))
        assert len(client.read_responses_to_eof()) == 2
    assert len(full.requests) == 2


def test_pipeline_of_a_client_that_went_away_is_not_executed(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate = full.gate()
    full.next(engine(FULL, gate=gate))
    with gateway.connect() as client:
        client.send(b"".join(hot(number) for number in range(10)))
        assert gate.reached.wait(30)
    assert full.wait_for_request().disconnected.wait(10)
    assert gateway.post(CHAT, chat()).status == 200
    assert len(full.requests) == 2
