"""A store that lost its tail, with real processes: an acknowledged kill is a kill."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from penumbra.deployments.control.last_seen import FILE_NAME
from tests.support.behaviours import engine
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

PATIENCE = 60.0


class Installation:
    """A control process whose store is put back, and a gateway that lives on."""

    def __init__(self, control: ControlProcess, gateway: GatewayProcess, folder: Path) -> None:
        self.control = control
        self.gateway = gateway
        self._copy = folder / "copy.db"

    def back_up(self) -> None:
        with (
            closing(sqlite3.connect(self.control.store_file)) as store,
            closing(sqlite3.connect(self._copy)) as copy,
        ):
            store.backup(copy)

    def lose_the_tail(self, *, forgets: bool) -> None:
        """Kill the control process and start it on the copy."""
        self.control.kill()
        file = self.control.store_file
        for name in (f"{file.name}-wal", f"{file.name}-shm"):
            (file.parent / name).unlink(missing_ok=True)
        shutil.copy(self._copy, file)
        if forgets:
            (file.parent / FILE_NAME).unlink()
        self.control.start()
        eventually(self.is_connected, timeout=PATIENCE, what="the gateway to be back")

    def is_connected(self) -> bool:
        return len(self.control.get("/gateways")["gateways"]) == 1

    def variant(self) -> str | None:
        answer = self.gateway.post(CHAT, chat(), {"x-user-id": "ann"})
        assert answer.status == 200
        return answer.header("x-penumbra-variant")

    def await_candidate(self) -> None:
        eventually(
            lambda: self.variant() == "int8", timeout=PATIENCE, what="the candidate to answer"
        )


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with ExitStack() as stack:
        builds = [
            ScriptedUpstream(name, engine(Engine(name, created=number)))
            for number, name in enumerate(("full", "int8"), start=1)
        ]
        for build in builds:
            build.start()
            stack.callback(build.stop)
        model = external(**{build.name: build.url for build in builds})
        control = stack.enter_context(ControlProcess(tmp_path, {"demo": model}))
        settings = {
            "control_url": control.url,
            "snapshot": {"epoch": 0, "models": {"demo": model}},
        }
        gateway = GatewayProcess(settings, tmp_path, {"PENUMBRA_GATEWAY_TOKEN": GATEWAY})
        stack.enter_context(gateway)
        found = Installation(control, gateway, tmp_path)
        eventually(found.is_connected, timeout=PATIENCE, what="the gateway to be connected")
        yield found


@pytest.mark.parametrize("forgets", [False, True])
def test_a_kill_after_a_lost_tail_is_acknowledged_by_gateways_that_have_it(
    installation: Installation, forgets: bool
) -> None:
    control = installation.control
    control.split(100)
    installation.back_up()
    control.split(90)  # epoch 3, which the copy does not have
    installation.await_candidate()
    installation.lose_the_tail(forgets=forgets)
    status = control.get("/status")
    assert status["generation"] == 2
    killed = control.post("/flags/demo/kill", {}).json()
    assert killed["gateways"] == {"connected": 1, "acknowledged": 1}
    assert installation.variant() == "full"
    assert control.get("/gateways")["gateways"][0]["epoch"] == killed["epoch"]


@pytest.mark.parametrize("forgets", [False, True])
def test_a_kill_that_was_lost_stays_in_force_and_is_said(
    installation: Installation, forgets: bool
) -> None:
    control = installation.control
    control.split(100)
    installation.await_candidate()
    installation.back_up()
    assert control.post("/flags/demo/kill", {}).status_code == 200
    installation.lose_the_tail(forgets=forgets)
    assert control.get("/flags/demo")["flag"]["killed"] is True
    assert installation.variant() == "full"
    status = control.get("/status")
    assert (status["health"], status["unconfirmed"]) == ("degraded", ["demo"])
    assert "store_went_back" in control.log_text()
    assert control.post("/flags/demo/unkill", {}).status_code == 200
    status = control.get("/status")
    assert (status["health"], status["unconfirmed"]) == ("healthy", [])
    installation.await_candidate()
