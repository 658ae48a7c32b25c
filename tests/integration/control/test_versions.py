"""This release and the one before on one link, in both orders.

The fixture is the wheel of the last commit before control processes had leaders, stores had
generations, and comparators told of evidence that stops.
"""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.alike_builds import QUICK_SPEC, alike_builds
from tests.support.comparator_process import comparator
from tests.support.control_process import ADMIN, GATEWAY, OPERATOR, ControlProcess, external
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

[WHEEL] = (Path(__file__).parents[2] / "fixtures" / "release_before").glob("*.whl")
PATIENCE = 60.0


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which processes are of the release before."""
    folder = tmp_path_factory.mktemp("release_before")
    zipfile.ZipFile(WHEEL).extractall(folder)
    environment = {"PYTHONPATH": str(folder)}
    found = subprocess.run(
        [sys.executable, "-c", "import penumbra.router.server as server; print(server.__file__)"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(folder))
    return environment


@pytest.fixture
def builds() -> Iterator[dict[str, ScriptedUpstream]]:
    with alike_builds() as found:
        yield found


@dataclass
class Mixed:
    """A control process, a comparator and a gateway that are not all of one release."""

    control: ControlProcess
    gateway: GatewayProcess
    _numbers: Any = field(default_factory=itertools.count)

    def ask(self) -> str | None:
        """Ask something new; returns the variant that answered."""
        text = f"question {next(self._numbers)}"
        response = self.gateway.post(CHAT, chat(messages=[{"role": "user", "content": text}]))
        assert response.status == 200
        return response.header("x-penumbra-variant")

    def ask_until(self, variant: str) -> None:
        """Ask until a variant answers."""
        deadline = time.monotonic() + PATIENCE
        while self.ask() != variant:
            assert time.monotonic() < deadline, self.view()

    def do(self, method: str, path: str, **body: Any) -> Any:
        answer = self.control.client.request(
            method,
            path,
            json={"reason": "try"} | body,
            headers={"authorization": f"Bearer {OPERATOR}"},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def set_flag(self, **flag: Any) -> Any:
        answer = self.control.client.put(
            "/flags/demo",
            json={"reason": "try", "flag": flag},
            headers={
                "authorization": f"Bearer {ADMIN}",
                "if-match": f'"{self.control.get("/flags/demo")["epoch"]}"',
            },
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def view(self) -> Any:
        return self.control.get("/rollouts/int8?model=demo")


@contextlib.asynccontextmanager
async def mixed(
    folder: Path,
    builds: dict[str, ScriptedUpstream],
    before: dict[str, str],
    *,
    is_control_old: bool,
) -> AsyncIterator[Mixed]:
    models = {"demo": external(**{name: build.url for name, build in builds.items()})}
    old, new = dict(before), dict[str, str]()  # an upgrade clears the one of its process
    of_control, of_others = (old, new) if is_control_old else (new, old)
    with contextlib.ExitStack() as stack:
        control = ControlProcess(folder, models, environment=of_control)
        await asyncio.to_thread(stack.enter_context, control)
        async with comparator(
            folder, control.url, token=GATEWAY, environment=of_others
        ) as compared:
            settings = {
                "control_url": control.url,
                "snapshot": {"epoch": 0, "models": models},
                "shadow_socket": str(compared.socket_path),
            }
            gateway = GatewayProcess(
                settings, folder, {"PENUMBRA_GATEWAY_TOKEN": GATEWAY, **of_others}
            )
            await asyncio.to_thread(stack.enter_context, gateway)
            await asyncio.to_thread(
                eventually, lambda: "comparator_connected" in gateway.log_text()
            )
            yield Mixed(control, gateway)


@pytest.mark.parametrize("is_control_old", [True, False])
async def test_releases_work_together_in_either_order(
    tmp_path: Path,
    builds: dict[str, ScriptedUpstream],
    before: dict[str, str],
    is_control_old: bool,
) -> None:
    async with mixed(tmp_path, builds, before, is_control_old=is_control_old) as running:
        await asyncio.to_thread(live_and_back, running)


def live_and_back(running: Mixed) -> None:
    """Bring the candidate live by pairs, kill it, give it back, and roll it back."""
    running.do("PUT", "/rollouts", spec=QUICK_SPEC)
    running.ask_until("int8")
    killed = running.do("POST", "/flags/demo/kill")
    assert killed["gateways"] == {"connected": 1, "acknowledged": 1}
    assert {running.ask() for _ in range(20)} == {"full"}
    running.do("POST", "/flags/demo/unkill")
    running.ask_until("int8")
    # The link is made anew, and the lease with it.
    running.control.kill()
    running.control.start()
    running.ask_until("int8")
    running.do("POST", "/rollouts/int8/rollback?model=demo")
    running.ask_until("full")  # the release before answered before its gateways had it
    assert {running.ask() for _ in range(20)} == {"full"}


async def test_a_control_process_is_upgraded_under_an_older_gateway(
    tmp_path: Path, builds: dict[str, ScriptedUpstream], before: dict[str, str]
) -> None:
    async with mixed(tmp_path, builds, before, is_control_old=True) as running:
        await asyncio.to_thread(upgrade, running)


def upgrade(running: Mixed) -> None:
    """Start this release's control process on the store of the one before."""
    running.do("PUT", "/rollouts", spec=QUICK_SPEC)
    running.ask_until("int8")
    assert running.control.stop() == 0
    running.control.environment.clear()
    running.control.start()
    assert running.view()["stage"] == "100"
    eventually(
        lambda: len(running.control.get("/gateways")["gateways"]) == 1, what="the gateway's link"
    )
    running.ask_until("int8")
    killed = running.do("POST", "/flags/demo/kill")
    assert killed["gateways"] == {"connected": 1, "acknowledged": 1}
    assert {running.ask() for _ in range(20)} == {"full"}


async def test_an_older_gateway_serves_no_candidate_where_it_is_quarantined(
    tmp_path: Path, builds: dict[str, ScriptedUpstream], before: dict[str, str]
) -> None:
    async with mixed(tmp_path, builds, before, is_control_old=False) as running:
        await asyncio.to_thread(quarantine_one_candidate, running)


def quarantine_one_candidate(running: Mixed) -> None:
    """Close the slice to the candidate alone, which a gateway of before cannot be told."""
    running.set_flag(split={"int8": 100})
    running.ask_until("int8")
    answer = running.set_flag(split={"int8": 100}, quarantined_for={"int8": ["other"]})
    assert answer["gateways"] == {"connected": 1, "acknowledged": 1}
    assert {running.ask() for _ in range(20)} == {"full"}
    running.set_flag(split={"int8": 100}, quarantined_for={})
    running.ask_until("int8")


async def test_an_older_gateway_gives_a_candidate_with_a_scope_no_share_and_takes_the_kill(
    tmp_path: Path, builds: dict[str, ScriptedUpstream], before: dict[str, str]
) -> None:
    async with mixed(tmp_path, builds, before, is_control_old=False) as running:
        await asyncio.to_thread(begin_in_a_scope, running)


def begin_in_a_scope(running: Mixed) -> None:
    """Begin a rollout with a scope: the older gateway takes each table, and mirrors nothing."""
    answer = running.do("PUT", "/rollouts", spec=QUICK_SPEC | {"scope": {"slices": ["other"]}})
    assert answer["gateways"] == {"connected": 1, "acknowledged": 1}
    assert {running.ask() for _ in range(60)} == {"full"}
    assert (running.view()["stage"], running.view()["pairs"]) == ("shadow", 0)
    killed = running.do("POST", "/flags/demo/kill")
    assert killed["gateways"] == {"connected": 1, "acknowledged": 1}
