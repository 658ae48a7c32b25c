"""SIGTERM: no new connection is taken, requests under way end well, the exit status is 0."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL, INT8
from tests.support.behaviours import LAST_CHUNK, STREAM_HEAD, chunk, dying_stream, engine, gated
from tests.support.engine_wire import TEXT
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.raw_client import RawClient
from tests.support.requests import CHAT, StreamView, chat, dumps
from tests.support.scripted_upstream import Gate, ScriptedUpstream

SOON = 20.0
"""Less than a gateway waits for what is under way: `penumbra.router.server.GRACE_SECONDS`."""


@pytest.fixture
def mortal(settings: dict[str, Any], tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway of its own, which the test may end."""
    with GatewayProcess(settings, tmp_path) as process:
        yield process


def assert_ends_well(process: GatewayProcess) -> None:
    assert process.process.wait(SOON) == 0, process.log_text()[-2000:]
    assert "Traceback" not in process.log_text()


def half_a_stream(full: ScriptedUpstream) -> tuple[Gate, list[bytes]]:
    events = FULL.events(CHAT, chat())
    gate = full.gate()
    early, late = b"".join(map(chunk, events[:3])), b"".join(map(chunk, events[3:]))
    full.next(gated(STREAM_HEAD + early, gate, late + LAST_CHUNK))
    return gate, events


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_idle_gateway_ends_at_once(mortal: GatewayProcess, name: signal.Signals) -> None:
    mortal.process.send_signal(name)
    assert_ends_well(mortal)


def test_gateway_with_idle_connections_ends_at_once(mortal: GatewayProcess) -> None:
    with mortal.connect(timeout=SOON) as silent, mortal.connect(timeout=SOON) as used:
        used.send_request(CHAT, dumps(chat()))
        assert used.read_response().status == 200
        mortal.terminate()
        assert silent.is_closed()
        assert used.is_closed()
        assert_ends_well(mortal)


def test_answer_under_way_ends_well(mortal: GatewayProcess, full: ScriptedUpstream) -> None:
    gate = full.gate()
    full.next(engine(FULL, gate=gate))
    with mortal.connect() as client:
        client.send_request(CHAT, dumps(chat()))
        assert gate.reached.wait(SOON)
        mortal.terminate()
        wait_until_draining(mortal)
        gate.open()
        assert client.read_response().json()["choices"][0]["message"]["content"] == TEXT
        assert client.is_closed()
        assert_ends_well(mortal)


def test_stream_under_way_ends_well(mortal: GatewayProcess, full: ScriptedUpstream) -> None:
    gate, events = half_a_stream(full)
    with mortal.connect() as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        assert gate.reached.wait(SOON)
        mortal.terminate()
        wait_until_draining(mortal)
        gate.open()
        assert client.read_response().events == events
        assert_ends_well(mortal)


def test_stream_that_breaks_while_draining_is_still_continued(
    mortal: GatewayProcess, int8: ScriptedUpstream
) -> None:
    gate = int8.gate()
    int8.next(dying_stream(INT8, after_events=4, gate=gate))
    with mortal.connect() as client:
        client.send_request(CHAT, dumps(chat("demo-candidate", stream=True)))
        assert gate.reached.wait(SOON)
        mortal.terminate()
        wait_until_draining(mortal)
        gate.open()
        assert StreamView.of(client.read_response()).text == TEXT
        assert_ends_well(mortal)


def test_draining_gateway_takes_no_new_connection(
    mortal: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate, _ = half_a_stream(full)
    with mortal.connect() as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        assert gate.reached.wait(SOON)
        mortal.terminate()
        wait_until_draining(mortal)
        eventually(lambda: is_refused(mortal.port), what="new connections to be refused")
        gate.open()
        client.read_response()
    assert_ends_well(mortal)


def test_draining_gateway_is_not_ready_but_alive(
    mortal: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate, _ = half_a_stream(full)
    with mortal.connect() as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        assert gate.reached.wait(SOON)
        mortal.terminate()
        wait_until_draining(mortal)
        assert mortal.get("/health", is_internal=True).status == 200
        gate.open()
        client.read_response()
    assert_ends_well(mortal)


def test_request_on_a_kept_connection_while_draining_is_answered_or_closed(
    mortal: GatewayProcess, full: ScriptedUpstream
) -> None:
    gate, _ = half_a_stream(full)
    with mortal.connect() as kept, mortal.connect() as client:
        client.send_request(CHAT, dumps(chat(stream=True)))
        assert gate.reached.wait(SOON)
        mortal.terminate()
        wait_until_draining(mortal)
        try:
            kept.send_request(CHAT, dumps(chat()))
            answers = kept.read_responses_to_eof()
        except OSError:
            answers = []
        assert [answer.status for answer in answers if answer.status not in (200, 503)] == []
        gate.open()
        client.read_response()
    assert_ends_well(mortal)


def wait_until_draining(process: GatewayProcess) -> None:
    def is_unready() -> bool:
        return process.get("/ready", is_internal=True).status == 503

    eventually(is_unready, what="/ready to say 503")


def is_refused(port: int) -> bool:
    try:
        RawClient(port).close()
    except ConnectionRefusedError:
        return True
    return False
