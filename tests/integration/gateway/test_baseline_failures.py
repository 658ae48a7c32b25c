"""A failing baseline: it is asked once more, replaced where a flag allows, else reported."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.gateway.conftest import model
from tests.support.behaviours import (
    close_before_head,
    error_event,
    hang,
    raw,
    respond,
    stream_of,
)
from tests.support.engine_wire import TEXT, engine_error
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.requests import CHAT, StreamView, chat
from tests.support.scripted_upstream import ScriptedUpstream

TINY = {"split": {"int8": 0.01}}
"""A live share that none of these requests falls into."""


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {
        "first_byte_seconds": 0.5,
        "whole_answer_seconds": 0.5,
        "connect_seconds": 0.4,
        "idle_seconds": 0.5,
    }


@pytest.fixture(scope="module")
def deaf() -> Iterator[str]:
    """URL of a server whose queue of connections is full: connecting takes for ever."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream, deaf: str) -> dict[str, Any]:
    pinned = [{"kind": "key", "subject": "vip", "variant": "int8"}]
    everything = {"name": "everything", "match": {}}
    to_int8 = {"name": "to-int8", "match": {"tenants": ["pinned-tenant"]}, "variant": "int8"}
    unreachable = model(full, int8)
    unreachable["variants"]["full"] = {"url": deaf}
    return {
        "demo": model(full, int8),
        "demo-live": model(full, int8, flag=TINY),
        "demo-rule": model(full, int8, flag={"rules": [to_int8]}),
        "demo-zero": model(full, int8, flag={"split": {"int8": 0}}),
        "demo-killed": model(full, int8, flag={**TINY, "killed": True}),
        "demo-blocked": model(full, int8, flag={**TINY, "blocked": ["int8"]}),
        "demo-quarantined": model(
            full, int8, slices=[everything], flag={**TINY, "quarantined": ["everything"]}
        ),
        "demo-pinned": model(full, int8, flag={"pins": pinned}),
        "deaf": unreachable,
    }


def test_baseline_that_refuses_is_unavailable(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    with full.refusing():
        response = gateway.post(CHAT, chat())
    assert (response.status, response.error["code"]) == (503, "upstream_unavailable")
    assert response.header("retry-after") == "1"
    assert int8.requests == []


def test_baseline_that_refuses_is_counted(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    labels = {"variant": "full", "outcome": "refused"}
    with full.refusing(), counting(gateway, "penumbra_upstream_attempts_total", by=2, **labels):
        gateway.post(CHAT, chat())


@pytest.mark.parametrize("is_stream", [False, True])
def test_baseline_that_closes_once_is_asked_again(
    gateway: GatewayProcess, full: ScriptedUpstream, is_stream: bool
) -> None:
    full.close_connections()
    full.next(close_before_head())
    response = gateway.post(CHAT, chat(stream=is_stream))
    assert response.status == 200
    assert response.header("x-penumbra-variant") == "full"
    assert len(full.requests) == 2


def test_baseline_is_asked_twice_at_most_on_fresh_connections(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.close_connections()
    full.always(close_before_head())
    response = gateway.post(CHAT, chat())
    assert (response.status, response.error["code"]) == (503, "upstream_unavailable")
    assert len(full.requests) == 2
    assert len({request.connection for request in full.requests}) == 2


def test_connection_that_cannot_be_made_in_time_is_a_refusal(gateway: GatewayProcess) -> None:
    response = gateway.post(CHAT, chat("deaf"))
    assert (response.status, response.error["code"]) == (503, "upstream_unavailable")


@pytest.mark.parametrize("is_stream", [False, True])
def test_candidate_with_a_live_share_stands_in_for_the_baseline(
    gateway: GatewayProcess, full: ScriptedUpstream, is_stream: bool
) -> None:
    usual = gateway.post(CHAT, chat("demo-live", stream=is_stream))
    with full.refusing():
        response = gateway.post(CHAT, chat("demo-live", stream=is_stream))
    assert usual.header("x-penumbra-variant") == "full"
    assert response.status == 200
    assert response.header("x-penumbra-variant") == "int8"
    assert response.header("x-penumbra-failover") == "refused"
    assert response.header("x-penumbra-reason") == usual.header("x-penumbra-reason") == "SPLIT"


def test_candidate_that_stands_in_is_counted(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    with (
        full.refusing(),
        counting(gateway, "penumbra_upstream_attempts_total", variant="int8", outcome="ok"),
    ):
        gateway.post(CHAT, chat("demo-live"))


@pytest.mark.parametrize(
    "name",
    [
        "demo",
        "demo-zero",
        "demo-rule",
        "demo-killed",
        "demo-blocked",
        "demo-quarantined",
    ],
)
def test_candidate_without_a_live_share_does_not_stand_in(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, name: str
) -> None:
    with full.refusing():
        response = gateway.post(CHAT, chat(name))
    assert (response.status, response.error["code"]) == (503, "upstream_unavailable")
    assert int8.requests == []


def test_candidate_that_is_pinned_for_others_does_not_stand_in(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    with full.refusing():
        assert gateway.post(CHAT, chat("demo-pinned", user="other")).status == 503
    assert int8.requests == []


def test_candidate_that_fails_while_standing_in_ends_it(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    int8.always(respond(500, b""))
    with full.refusing():
        response = gateway.post(CHAT, chat("demo-live"))
    assert 500 <= response.status < 600
    assert response.header("x-request-id")


def test_both_builds_refusing_is_unavailable(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    with full.refusing(), int8.refusing():
        response = gateway.post(CHAT, chat("demo-live"))
    assert (response.status, response.error["code"]) == (503, "upstream_unavailable")
    assert response.header("retry-after") == "1"


@pytest.mark.parametrize("name", ["demo", "demo-live"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_baseline_that_hangs_times_out_and_is_not_asked_again(
    gateway: GatewayProcess,
    full: ScriptedUpstream,
    int8: ScriptedUpstream,
    name: str,
    is_stream: bool,
) -> None:
    full.always(hang())
    response = gateway.post(CHAT, chat(name, stream=is_stream))
    assert (response.status, response.error["code"]) == (504, "upstream_timeout")
    asked = [request for request in full.requests if request.target == CHAT]
    assert (len(asked), int8.requests) == (1, [])
    assert full.wait_for_request().disconnected.wait(10)


@pytest.mark.parametrize("name", ["demo", "demo-live"])
@pytest.mark.parametrize("status", [500, 501, 503, 429])
@pytest.mark.parametrize("is_stream", [False, True])
def test_error_of_the_baselines_engine_passes_unchanged(
    gateway: GatewayProcess, full: ScriptedUpstream, name: str, status: int, is_stream: bool
) -> None:
    body = engine_error("busy", status)
    full.always(respond(status, body, [("content-type", "application/json"), ("retry-after", "9")]))
    response = gateway.post(CHAT, chat(name, stream=is_stream))
    assert (response.status, response.body) == (status, body)
    assert response.header("retry-after") == "9"
    assert response.header("x-penumbra-variant") == "full"
    assert len(full.requests) == 1


NO_SERVER = b"<html><body><h1>503 Service Unavailable</h1>No server is available</body></html>"


@pytest.mark.parametrize("status", [429, 500, 504])
def test_error_of_a_proxy_before_the_baseline_passes_unchanged(
    gateway: GatewayProcess, full: ScriptedUpstream, status: int
) -> None:
    full.always(respond(status, NO_SERVER, [("content-type", "text/html"), ("retry-after", "3")]))
    response = gateway.post(CHAT, chat("demo-live"))
    assert (response.status, response.body) == (status, NO_SERVER)
    assert response.header("retry-after") == "3"
    assert len(full.requests) == 1


@pytest.mark.parametrize("status", [502, 503])
def test_proxy_that_has_no_baseline_to_ask_is_a_refusal(
    gateway: GatewayProcess, full: ScriptedUpstream, status: int
) -> None:
    full.always(respond(status, NO_SERVER, [("content-type", "text/html")]))
    response = gateway.post(CHAT, chat("demo-live"))
    assert response.header("x-penumbra-variant") == "int8"
    assert response.header("x-penumbra-failover") == "refused"


def test_proxy_that_has_no_baseline_to_ask_once_is_asked_again(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(respond(503, NO_SERVER, [("content-type", "text/html")]))
    response = gateway.post(CHAT, chat())
    assert response.status == 200
    assert response.header("x-penumbra-variant") == "full"


def test_error_of_the_baseline_is_counted_as_a_server_error(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(respond(500, engine_error("boom", 500)))
    labels = {"variant": "full", "outcome": "server_error"}
    with counting(gateway, "penumbra_upstream_attempts_total", **labels):
        gateway.post(CHAT, chat())


def test_garbage_of_the_baseline_is_told(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    full.always(raw(b"hello\r\n\r\n"))
    response = gateway.post(CHAT, chat())
    assert (response.status, response.error["code"]) == (502, "upstream_garbage")


def test_error_event_in_place_of_the_baselines_first_reaches_the_client(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(stream_of(error_event("no memory left"), b"data: [DONE]\n\n"))
    with gateway.connect() as client:
        client.send_request(CHAT, b'{"model":"demo","messages":[],"stream":true}')
        answer = client.read_head()
        shown = client.read_until(b"\n\n") if answer.status == 200 else b""
    assert answer.status >= 500 or b'"error"' in shown


def test_kept_connection_that_the_baseline_closed_is_no_failure(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    gateway.post(CHAT, chat())
    full.close_connections()
    with (
        counting(gateway, "penumbra_upstream_attempts_total", by=0, outcome="refused"),
        counting(gateway, "penumbra_failovers_total", by=0),
    ):
        response = gateway.post(CHAT, chat(stream=True))
    assert StreamView.of(response).text == TEXT
    assert response.header("x-penumbra-failover") is None
