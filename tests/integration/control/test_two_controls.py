"""Two control processes on one store: one leads, the other stands by and takes over."""

import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.behaviours import engine
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.postgres import PostgresServer, find_binaries, postgres_server
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

LEASE_SECONDS = 10.0
PATIENCE = 60.0
BINARIES = find_binaries()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a store for two processes."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'shared' / 'penumbra.db'}"
        return
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    if BINARIES is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres_server(BINARIES) as server:
        yield _url(server)


def _url(server: PostgresServer) -> str:
    return server.url


class Pair:
    """Two control processes of which `a` began to lead, and two gateways that are not started.

    The first gateway knows of no leader but `a`, the second one of both.
    """

    def __init__(self, folder: Path, store: str, builds: list[ScriptedUpstream]) -> None:
        model = external(**{build.name: build.url for build in builds})
        settings = {"store": store, "lease_seconds": LEASE_SECONDS}
        self.controls = []
        for name in "ab":
            (folder / name).mkdir()
            self.controls.append(ControlProcess(folder / name, {"demo": model}, settings))
        self.a, self.b = self.controls
        self.gateways = [
            GatewayProcess(
                {
                    "control_url": control.url,
                    "other_control_urls": others,
                    "gateway_id": f"gateway-{number}",
                    "snapshot": {"epoch": 0, "models": {"demo": model}},
                },
                folder,
                {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
            )
            for number, (control, others) in enumerate(((self.a, ()), (self.b, (self.a.url,))))
        ]

    def await_leader(self, control: ControlProcess) -> None:
        eventually(lambda: control.role() == "ready", timeout=PATIENCE, what="a new leader")


@pytest.fixture
def pair(tmp_path: Path, store: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        builds = [
            ScriptedUpstream(name, engine(Engine(name, created=number)))
            for number, name in enumerate(("full", "int8"), start=1)
        ]
        for build in builds:
            build.start()
            stack.callback(build.stop)
        pair = Pair(tmp_path, store, builds)
        for control in pair.controls:
            stack.callback(control.__exit__)
        pair.a.start()
        pair.b.start(stands_by=True)
        yield pair


def test_a_standby_reads_and_refuses_to_write_naming_the_leader(pair: Pair) -> None:
    epoch = pair.a.split(30)["epoch"]
    assert pair.b.role() == "standby"
    eventually(
        lambda: pair.b.get("/flags/demo")["epoch"] == epoch,
        timeout=PATIENCE,
        what="the standby to follow",
    )
    assert pair.b.get("/flags/demo")["flag"]["split"] == {"int8": 30.0}
    refused = pair.b.post("/flags/demo/kill", {})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_leader")
    assert pair.a.url in refused.json()["error"]["message"]
    assert pair.a.get("/flags/demo")["epoch"] == epoch


def test_a_leader_that_ends_in_order_is_followed_at_once(pair: Pair) -> None:
    epoch = pair.a.split(30)["epoch"]
    assert pair.a.stop() == 0
    pair.await_leader(pair.b)
    assert pair.b.split(40)["epoch"] == epoch + 1


def test_a_leader_that_is_killed_is_followed_and_comes_back_as_standby(pair: Pair) -> None:
    epoch = pair.a.split(30)["epoch"]
    pair.a.kill()
    pair.await_leader(pair.b)
    assert pair.b.get("/flags/demo")["epoch"] == epoch
    pair.a.start(stands_by=True)
    assert (pair.a.role(), pair.b.role()) == ("standby", "ready")


def test_a_flag_is_not_reset_beside_a_running_process(pair: Pair) -> None:
    epoch = pair.a.split(30)["epoch"]
    reset = pair.b.run("--reset-flag", "demo", "--reason", "try")
    assert reset.returncode == 2
    assert pair.a.url in reset.stderr
    assert "stop it first" in reset.stderr
    assert pair.a.get("/flags/demo")["epoch"] == epoch


def stop_between_writes(control: ControlProcess, store: str) -> None:
    """Stop a process outside a transaction: within one it holds an SQLite file for good."""
    _stop(control)
    while store.startswith("sqlite") and _is_locked(store.removeprefix("sqlite:///")):
        control.process.send_signal(signal.SIGCONT)
        threading.Event().wait(0.05)
        _stop(control)


def _stop(control: ControlProcess) -> None:
    """Stop a process, and wait until each of its threads stands still."""
    control.process.send_signal(signal.SIGSTOP)
    eventually(
        lambda: all(
            task.read_text().rpartition(")")[2].split()[0] in "Tt"
            for task in Path(f"/proc/{control.process.pid}/task").glob("*/stat")
        ),
        timeout=PATIENCE,
        what="the process to be stopped",
    )


def _is_locked(file: str) -> bool:
    with closing(sqlite3.connect(file, timeout=0.5)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.rollback()
        return False


class Traffic(threading.Thread):
    """Asks a gateway as fast as it answers, and remembers when a candidate's answer was asked."""

    def __init__(self, gateway: GatewayProcess) -> None:
        super().__init__(daemon=True)
        self.candidate_at = float("-inf")
        self.failed = 0
        self._gateway = gateway
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            answer = self._gateway.post(CHAT, chat(), {"x-user-id": "ann"})
            self.failed += answer.status != 200
            if answer.header("x-penumbra-variant") == "int8":
                self.candidate_at = began

    def stop(self) -> None:
        self._is_over.set()
        self.join(PATIENCE)


@pytest.mark.parametrize("is_killed", [True, False])
def test_no_candidate_answers_after_a_kill_that_the_next_leader_acknowledged(
    pair: Pair, store: str, is_killed: bool
) -> None:
    gateway = pair.gateways[0]  # knows of no leader but the first
    with gateway:
        traffic = Traffic(gateway)
        traffic.start()
        try:
            _await_gateway(pair.a)
            pair.a.split(100)
            eventually(
                lambda: traffic.candidate_at > 0, timeout=PATIENCE, what="the candidate to answer"
            )
            if is_killed:
                pair.a.kill()
            else:
                stop_between_writes(pair.a, store)
            pair.await_leader(pair.b)
            killed = pair.b.post("/flags/demo/kill", {})
            acknowledged_at = time.monotonic()
            assert killed.status_code == 200
            if not is_killed:
                pair.a.process.send_signal(signal.SIGCONT)
                refused = pair.a.post("/flags/demo/unkill", {})
                assert refused.json()["error"]["code"] == "not_leader"
                eventually(
                    lambda: pair.a.role() == "standby", timeout=PATIENCE, what="it to stand by"
                )
            # Longer than any lease could still be.
            threading.Event().wait(LEASE_SECONDS + 0.5)
            assert traffic.candidate_at < acknowledged_at
        finally:
            traffic.stop()
        assert traffic.failed == 0
    assert pair.b.get("/flags/demo")["flag"]["killed"] is True
    assert [item["kind"] for item in pair.b.get("/history")["items"]][-1] == "kill"


def test_gateways_find_the_next_leader_and_its_kill_is_in_force_when_it_is_answered(
    pair: Pair, store: str
) -> None:
    gateway = pair.gateways[1]
    with gateway:
        traffic = Traffic(gateway)
        traffic.start()
        try:
            for leader, next_leader in ((pair.a, pair.b), (pair.b, pair.a)):
                _await_gateway(leader)
                leader.split(100)
                began = time.monotonic()
                eventually(
                    lambda began=began: traffic.candidate_at > began,
                    timeout=PATIENCE,
                    what="the candidate to answer",
                )
                stop_between_writes(leader, store)
                pair.await_leader(next_leader)
                _await_gateway(next_leader)
                killed = next_leader.post("/flags/demo/kill", {}).json()
                acknowledged_at = time.monotonic()
                assert killed["gateways"] == {"connected": 1, "acknowledged": 1}
                leader.process.send_signal(signal.SIGCONT)
                eventually(
                    lambda leader=leader: leader.role() == "standby",
                    timeout=PATIENCE,
                    what="the one that was stopped to stand by",
                )
                assert traffic.candidate_at < acknowledged_at
                next_leader.post("/flags/demo/unkill", {})
        finally:
            traffic.stop()
        assert traffic.failed == 0


def _await_gateway(control: ControlProcess) -> None:
    eventually(
        lambda: len(control.get("/gateways")["gateways"]) == 1,
        timeout=PATIENCE,
        what="the gateway to be connected",
    )
