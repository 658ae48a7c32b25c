"""`penumbra gateway kill` on real processes, with the control process away and back."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from penumbra.serve.cli.main import app
from tests.support.behaviours import engine
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
def builds() -> Iterator[dict[str, str]]:
    found = [ScriptedUpstream(name, engine(Engine(name))) for name in ("full", "int8")]
    for build in found:
        build.start()
    yield {build.name: build.url for build in found}
    for build in found:
        build.stop()


class Site:
    """One control process and one gateway, all of whose traffic goes to int8."""

    def __init__(self, folder: Path, builds: dict[str, str]) -> None:
        self.models = {"demo": external(**builds)}
        self.control = ControlProcess(folder, self.models)
        self.gateway = GatewayProcess(
            {
                "control_url": self.control.url,
                "kills_file": str(folder / "kills.json"),
                "snapshot": {"epoch": 0, "models": self.models},
            },
            folder,
            {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
        )
        self.file = folder / "site.yaml"
        port = self.gateway.internal_port
        settings = {"gateway": {"internal_port": port}, "control": {"port": self.control.port}}
        self.file.write_text(yaml.safe_dump({"models": self.models, **settings}))

    def kill(self, *arguments: str) -> Result:
        environment = {"PENUMBRA_GATEWAY_TOKEN": GATEWAY, "PENUMBRA_ACTOR": "ann"}
        command = ["gateway", "kill", "demo", "-f", str(self.file), "--reason", "it lies"]
        return CliRunner().invoke(app, [*command, *arguments], env=environment)

    def answered(self) -> tuple[str, str]:
        head = dict(self.gateway.post(CHAT, chat()).headers)
        return head["x-penumbra-variant"], head["x-penumbra-reason"]

    def await_answer(self, variant: str, reason: str) -> None:
        eventually(lambda: self.answered() == (variant, reason), what=f"{variant} ({reason})")


@pytest.mark.timeout(180)
def test_a_kill_at_the_gateway_holds_until_the_flags_kill_takes_it_over(
    tmp_path: Path, builds: dict[str, str]
) -> None:
    site = Site(tmp_path, builds)
    with site.control, site.gateway:
        control = site.control
        assert control.post("/flags/demo/split", {"split": {"int8": 100}}).is_success
        site.await_answer("int8", "SPLIT")
        refused = site.kill()
        assert refused.exit_code == 1
        assert "use `penumbra flags kill demo`" in " ".join(refused.stderr.split())
        assert site.answered() == ("int8", "SPLIT")

        control.process.send_signal(signal.SIGKILL)
        control.process.wait(20)
        killed = site.kill()
        assert killed.exit_code == 0, killed.stderr
        assert (
            f"gateway-0 at http://127.0.0.1:{site.gateway.internal_port}: killed" in killed.stdout
        )
        assert site.answered() == ("full", "KILL_SWITCH")

        site.gateway.stop()
        site.gateway.start()
        control.start()

        def told() -> list[str]:
            problems: list[str] = control.get("/status")["problems"]
            return [text for text in problems if text.startswith("demo is killed at gateway-0")]

        eventually(lambda: told() != [], what="the control process to be told")
        assert "it lies (ann)" in told()[0]
        site.await_answer("full", "KILL_SWITCH")

        assert control.post("/flags/demo/kill", {}).is_success
        eventually(lambda: told() == [], what="the flag's kill to take it over")
        assert control.post("/flags/demo/unkill", {}).is_success
        site.await_answer("int8", "SPLIT")


@pytest.mark.timeout(60)
def test_gateways_that_are_not_reached_are_told(tmp_path: Path, builds: dict[str, str]) -> None:
    site = Site(tmp_path, builds)
    done = site.kill()
    assert done.exit_code == 4
    assert "ConnectError" in done.stdout
    assert "1 of 1 gateways were not reached" in " ".join(done.stderr.split())
