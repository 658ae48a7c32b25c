"""No live candidate traffic without a live guard: processes killed, stopped, and cut off."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from tests.support.behaviours import engine
from tests.support.cable import Cable
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_probe import probed
from tests.support.engine_wire import Engine
from tests.support.gateway_process import ROOT, GatewayProcess, eventually, free_port
from tests.support.lease_load import traffic
from tests.support.scripted_upstream import ScriptedUpstream

LEASE_SECONDS = 2.0
SLACK_SECONDS = 1.0
"""The promise: within the lease and this much more no candidate answer begins."""
LOOK_SECONDS = 1.5
"""Seconds for which traffic is watched after the lease is over."""
FAULTS = ["killed", "stopped", "cut off"]
TOKEN = {"PENUMBRA_GATEWAY_TOKEN": GATEWAY}


class Restartable(Protocol):
    """A process of which a test may think the worst."""

    @property
    def process(self) -> subprocess.Popen[bytes]: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...


@dataclass
class Guard:
    """The process that guards, and the cable that it is connected by."""

    process: Restartable
    cable: Cable

    def fail(self, fault: str) -> None:
        match fault:
            case "killed":
                self.process.kill()
            case "stopped":
                self.process.process.send_signal(signal.SIGSTOP)
            case _:
                self.cable.cut()

    def recover(self, fault: str) -> None:
        match fault:
            case "killed":
                self.process.start()
            case "stopped":
                self.process.process.send_signal(signal.SIGCONT)
            case _:
                self.cable.mend()


class Module:
    """One `python -m MODULE` that says when it is ready."""

    def __init__(self, module: str, arguments: list[str], ready_url: str, log: Path) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._ready_url = ready_url
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Module":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, **TOKEN},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

        def is_ready() -> bool:
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            try:
                return httpx.get(self._ready_url).status_code == 200
            except httpx.TransportError:
                return False

        eventually(is_ready, timeout=60.0, what="the process to be ready")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5.0)


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Any]]:
    """Two models, of which only `demo` has a comparator among its guards."""
    builds = [
        ScriptedUpstream(name, engine(Engine(name, created=number)))
        for number, name in enumerate(("full", "int8"), start=1)
    ]
    for build in builds:
        build.start()
        probed(build)  # without scores there is no evidence, and without evidence no lease
    demo = external(**{build.name: build.url for build in builds}) | {
        "flag": {"split": {"int8": 50}}
    }
    yield {"demo": demo, "plain": demo}
    for build in builds:
        build.stop()


def gateways(
    stack: ExitStack, folder: Path, control_url: str, models: dict[str, Any]
) -> list[GatewayProcess]:
    settings = {"control_url": control_url, "snapshot": {"epoch": 0, "models": models}}
    return [
        stack.enter_context(
            GatewayProcess({**settings, "gateway_id": f"gateway-{number}"}, folder, TOKEN)
        )
        for number in range(2)
    ]


@pytest.fixture(scope="module")
def controlled(
    models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Guard, list[GatewayProcess]]]:
    """The real control process, and gateways that are connected to it by a cable."""
    folder = tmp_path_factory.mktemp("controlled")
    with ExitStack() as stack:
        control = ControlProcess(folder, models, {"lease_seconds": LEASE_SECONDS})
        stack.enter_context(control)
        cable = stack.enter_context(Cable(control.port))
        yield Guard(control, cable), gateways(stack, folder, cable.url, models)


@pytest.fixture(scope="module")
def compared(
    models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Guard, list[GatewayProcess]]]:
    """A real comparator, connected by a cable, beside the gateways of a model that is mirrored."""
    folder = tmp_path_factory.mktemp("compared")
    # Few are compared: these engines, in the test's own process, have their hands full as it is.
    watch = {"candidate": "int8", "run": "run-1", "mirror": 0.01}
    table = {"epoch": 1, "models": {**models, "demo": models["demo"] | {"watches": [watch]}}}
    (folder / "table.json").write_text(json.dumps(table))
    port, internal_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["--port", str(port), "--lease", str(LEASE_SECONDS)]
    arguments += ["--table", str(folder / "table.json")]
    with ExitStack() as stack:
        stack.enter_context(
            Module("tests.support.guard_process", arguments, f"{url}/links", folder / "guard.log")
        )
        cable = stack.enter_context(Cable(port))
        settings = {
            "control_url": cable.url,
            "socket_path": str(folder / "shadow.sock"),
            "internal_port": internal_port,
        }
        (folder / "comparator.json").write_text(json.dumps(settings))
        comparator = Module(
            "penumbra.router.shadow",
            ["--settings", str(folder / "comparator.json")],
            f"http://127.0.0.1:{internal_port}/health",
            folder / "comparator.log",
        )
        stack.enter_context(comparator)
        yield Guard(comparator, cable), gateways(stack, folder, url, models)


def expect_no_candidate_after_the_lease(
    guard: Guard, gateways: list[GatewayProcess], fault: str
) -> None:
    with traffic(gateways) as seen:
        seen.await_variant("int8", after=0.0)
        failed_at = time.monotonic()
        guard.fail(fault)
        safe_at = failed_at + LEASE_SECONDS + SLACK_SECONDS
        threading.Event().wait(safe_at + LOOK_SECONDS - failed_at)
        eventually(lambda: len(seen.between(safe_at, time.monotonic())) > 40, what="requests")
        recovered_at = time.monotonic()
        guard.recover(fault)
        seen.await_variant("int8", after=recovered_at)
    assert {request.status for request in seen.answered} == {200}
    unguarded = seen.between(safe_at, recovered_at)
    assert len(unguarded) > 20
    assert {request.variant for request in unguarded} == {"full"}
    # About half of them would have got the candidate.
    expired = [request for request in unguarded if request.reason == "LEASE_EXPIRED"]
    assert len(expired) > len(unguarded) // 5


@pytest.mark.parametrize("fault", FAULTS)
def test_without_the_control_process_no_candidate_answers(
    controlled: tuple[Guard, list[GatewayProcess]], fault: str
) -> None:
    expect_no_candidate_after_the_lease(*controlled, fault)


@pytest.mark.parametrize("fault", FAULTS)
def test_without_the_comparator_no_candidate_answers(
    compared: tuple[Guard, list[GatewayProcess]], fault: str
) -> None:
    expect_no_candidate_after_the_lease(*compared, fault)


def test_without_the_comparator_what_it_does_not_guard_goes_on(
    compared: tuple[Guard, list[GatewayProcess]],
) -> None:
    guard, gateways = compared
    guard.fail("stopped")
    try:
        threading.Event().wait(LEASE_SECONDS + SLACK_SECONDS)
        with traffic(gateways, "plain") as seen:
            seen.await_variant("int8", after=0.0)
    finally:
        guard.recover("stopped")
    assert {request.reason for request in seen.answered} == {"SPLIT"}
