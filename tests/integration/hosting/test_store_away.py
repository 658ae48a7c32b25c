"""`penumbra up` without its database: gateways serve the baseline until it is back."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from penumbra.serve.supervisor.state import RunState
from tests.support.behaviours import respond
from tests.support.installation import Installation
from tests.support.postgres import PostgresServer, find_binaries, postgres_server
from tests.support.scripted_upstream import ScriptedUpstream

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
BINARIES = find_binaries()
if BINARIES is None:
    pytest.skip("PostgreSQL is not installed", allow_module_level=True)

READY_SECONDS = 60.0
BODY = {"model": "demo", "prompt": "hi"}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    assert BINARIES is not None
    with postgres_server(BINARIES) as server:
        yield server


@pytest.fixture
def installation(server: PostgresServer, tmp_path: Path) -> Iterator[Installation]:
    upstream = ScriptedUpstream(
        "full", respond(200, b'{"object": "text_completion", "choices": []}')
    )
    upstream.start()
    model = {
        "baseline": "full",
        "variants": {"full": {"url": upstream.url}, "int8": {"url": f"{upstream.url}/int8"}},
    }
    with Installation({"demo": model}, tmp_path) as installation:
        settings = installation.config.read_text()
        control = "control:\n"
        assert control in settings
        installation.config.write_text(
            settings.replace(control, f"{control}  store: {server.url}\n")
        )
        yield installation
        assert installation.process is not None
        if installation.process.poll() is None:
            installation.send(signal.SIGTERM)
            assert installation.wait(60) == 0
    upstream.stop()


def is_ready(state: RunState, name: str) -> bool:
    return any(part.name == name and part.phase == "ready" for part in state.processes)


def assert_served(installation: Installation) -> None:
    answer = httpx.post(f"{installation.gateway_url}/v1/completions", json=BODY, timeout=30)
    assert (answer.status_code, answer.headers["x-penumbra-variant"]) == (200, "full")


def test_it_starts_without_its_database_and_takes_it_up_later(
    installation: Installation, server: PostgresServer
) -> None:
    server.stop()
    installation.start()
    installation.wait_for(lambda state: is_ready(state, "gateway-0"), READY_SECONDS)
    time.sleep(5.0)  # in which the control process tried several times
    assert_served(installation)
    assert installation.process is not None
    assert installation.process.poll() is None
    log = (installation.state_dir / "logs" / "control.log").read_text()
    assert log.count("store_awaited") == 1
    assert "Traceback" not in log
    server.start()
    installation.wait_until_ready(READY_SECONDS)
    assert_served(installation)


def test_a_control_process_that_dies_meanwhile_takes_nothing_with_it(
    installation: Installation, server: PostgresServer
) -> None:
    installation.start()
    before = installation.wait_for(lambda state: state.is_ready, READY_SECONDS)
    server.stop()
    psutil.Process(before.process("control").pid).kill()
    time.sleep(5.0)
    assert_served(installation)
    assert "Traceback" not in (installation.state_dir / "logs" / "control.log").read_text()
    server.start()
    after = installation.wait_for(
        lambda state: state.process("control").restarts > 0 and is_ready(state, "control"),
        READY_SECONDS,
    )
    assert after.process("gateway-0").pid == before.process("gateway-0").pid
    assert after.process("gateway-0").restarts == 0
