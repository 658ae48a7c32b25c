"""A PostgreSQL that stops answering: the control process answers all the same, and in time."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.errors import StoreInDoubt, StoreUnavailable
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history.state import fold
from penumbra.deployments.store.store import Store
from tests.support.control_plane import lead, payload, split_change
from tests.support.control_process import VIEWER, ControlProcess
from tests.support.gateway_process import eventually
from tests.support.postgres import PostgresServer, find_binaries, postgres_server

psycopg = pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
BINARIES = find_binaries()
if BINARIES is None:
    pytest.skip("PostgreSQL is not installed", allow_module_level=True)

CHANGE_BOUND_SECONDS = 5.0
READ_BOUND_SECONDS = 10.0
SLACK_SECONDS = 3.0
"""For a loaded machine."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    assert BINARIES is not None
    with postgres_server(BINARIES) as server:
        yield server


@pytest.fixture
def control(tmp_path: Path, server: PostgresServer) -> Iterator[ControlProcess]:
    settings = {"store": server.url, "lease_seconds": 2}
    with ControlProcess(tmp_path, settings=settings) as process:
        yield process


def test_a_change_is_refused_in_time_and_never_in_force_unless_said_to_be_in_doubt(
    control: ControlProcess, server: PostgresServer
) -> None:
    control.split(30)
    server.silence()
    began = time.monotonic()
    answers = [control.post("/flags/demo/kill", {}) for _ in range(3)]
    assert time.monotonic() - began < 3 * (CHANGE_BOUND_SECONDS + SLACK_SECONDS)
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] in {"store_unavailable", "store_in_doubt"}
        assert "store" in answer.json()["error"]["message"]
    server.resume()
    eventually(lambda: control.role() == "ready", timeout=60.0, what="the process to lead again")
    in_doubt = any(answer.json()["error"]["code"] == "store_in_doubt" for answer in answers)
    killed = control.get("/flags/demo")["flag"]["killed"]
    assert in_doubt or not killed
    epoch = control.split(40)["epoch"]
    assert control.get("/flags/demo")["flag"]["split"] == {"int8": 40}
    assert [event["kind"] for event in control.get("/history")["items"]].count("kill") == killed
    assert epoch == 3 + killed


def test_a_read_is_answered_in_time(control: ControlProcess, server: PostgresServer) -> None:
    def read() -> httpx.Response:
        return control.client.get("/history", headers={"authorization": f"Bearer {VIEWER}"})

    server.silence()
    began = time.monotonic()
    answer = read()
    assert time.monotonic() - began < READ_BOUND_SECONDS + SLACK_SECONDS
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "store_unavailable"
    server.resume()
    eventually(lambda: read().status_code == 200, timeout=60.0, what="the history")


def test_health_says_that_the_store_does_not_answer(
    control: ControlProcess, server: PostgresServer
) -> None:
    assert httpx.get(f"{control.url}/health").status_code == 200
    server.silence()

    def is_told() -> bool:
        answer = httpx.get(f"{control.url}/health")
        return answer.status_code == 503 and "store" in answer.json()["reason"]

    eventually(is_told, timeout=CHANGE_BOUND_SECONDS + 1 + SLACK_SECONDS, what="health to tell")
    server.resume()
    eventually(
        lambda: httpx.get(f"{control.url}/health").status_code == 200,
        timeout=60.0,
        what="health to be well again",
    )


def test_a_process_ends_in_time_while_the_store_is_silent(
    control: ControlProcess, server: PostgresServer
) -> None:
    server.silence()
    time.sleep(1.5)  # until a renewal is under way
    began = time.monotonic()
    assert control.stop() == 0
    assert time.monotonic() - began < 15.0


async def planned(server: PostgresServer) -> tuple[Controller, Store]:
    store = lead(Store(server.url))
    clocks = Clocks(lambda: datetime.now(UTC), time.monotonic)
    controller = Controller(store, Publisher(store.identity, time.monotonic), clocks, 1.0)
    await controller.follow()
    await controller.configure(payload(), "configuration")
    return controller, store


async def test_a_commit_that_was_under_way_is_in_doubt_and_then_known(
    server: PostgresServer,
) -> None:
    controller, store = await planned(server)

    def silence(_: object) -> None:
        server.silence()

    sa.event.listen(store._engine, "commit", silence, once=True)
    began = time.monotonic()
    with pytest.raises(StoreInDoubt):
        await controller.apply(split_change(30))
    assert time.monotonic() - began < CHANGE_BOUND_SECONDS + SLACK_SECONDS
    assert controller.state.epoch == 1
    server.resume()
    while True:  # refused at once while the thread is not free
        try:
            outcome = await controller.apply(split_change(40))
            break
        except StoreUnavailable:
            await asyncio.sleep(0.1)
    # Whether or not the server went on with the commit, the next change knew before it was made.
    events = await controller.read(lambda store: store.events())
    assert [event.epoch for event in events] == [*range(1, outcome.epoch + 1)]
    assert controller.state == fold(events)
    controller.close()


async def test_a_commit_whose_answer_is_lost_is_in_doubt_and_in_force_with_the_next_look(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, store = await planned(server)
    dialect = store._engine.dialect
    commit = dialect.do_commit

    def lose_the_answer(connection: Any) -> None:
        commit(connection)
        monkeypatch.undo()
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("the connection broke")

    monkeypatch.setattr(dialect, "do_commit", lose_the_answer)
    with pytest.raises(StoreInDoubt, match="the connection broke"):
        await controller.apply(split_change(30))
    assert controller.state.epoch == 1
    assert (await controller.apply(split_change(40))).epoch == 3
    controller.close()


async def test_a_change_that_was_refused_before_its_commit_is_never_made(
    server: PostgresServer,
) -> None:
    controller, store = await planned(server)

    def silence(*_: object) -> None:
        server.silence()

    sa.event.listen(store._engine, "before_cursor_execute", silence, once=True)
    with pytest.raises(StoreUnavailable) as refusal:
        await controller.apply(split_change(30))
    assert not isinstance(refusal.value, StoreInDoubt)
    server.resume()
    await asyncio.to_thread(
        eventually, lambda: not controller.stuck_seconds, timeout=30.0, what="the thread to be free"
    )
    await controller.follow()
    assert controller.state.epoch == 1
    assert (await controller.apply(split_change(40))).epoch == 2
    controller.close()
