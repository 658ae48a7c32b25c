"""Identities with real control processes: the command line, a standby, a restart."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from penumbra.serve.cli.access import app as access
from penumbra.serve.cli.flags import app as flags
from tests.support.control_process import ADMIN, ControlProcess
from tests.support.gateway_process import eventually

LOOK_SECONDS = 10.0


class Commands:
    """The command line against a control process."""

    def __init__(self, control: ControlProcess) -> None:
        self._environment = {
            "PENUMBRA_ADMIN_URL": control.url,
            "PENUMBRA_ADMIN_TOKEN": ADMIN,
            "PENUMBRA_ACTOR": "root",
            "COLUMNS": "200",
        }

    def access(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(access, arguments, env=self._environment | environment)

    def flags(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(flags, arguments, env=self._environment | environment)

    def token(self, *arguments: str) -> str:
        result = self.access(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return str(json.loads(result.stdout)["token"])

    def history(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.flags("history", "--json").stdout)["items"]
        return items


@pytest.fixture
def commands(control: ControlProcess) -> Commands:
    return Commands(control)


def test_command_shows_the_identitys_token_before_the_admins(
    commands: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(commands.token("add", "Zoë", "--role", "operator", "--expires", "90d") + "\n")
    killed = commands.flags("kill", "demo", "-m", "slow", PENUMBRA_TOKEN_FILE=str(file))
    assert killed.exit_code == 0, killed.output
    item = commands.history()[-1]
    assert (item["actor"], item["identity"], item["role"]) == ("Zoë", "Zoë", "operator")
    assert item["note"] == "root"
    shown = commands.flags("history").stdout
    assert "Zoë (operator, as root)" in shown
    assert "root (admin token)" in shown
    assert "Zoë (operator) added" in shown
    refused = commands.access("list", PENUMBRA_TOKEN_FILE=str(file))
    assert refused.exit_code == 5


def test_identity_is_listed_rotated_and_revoked(commands: Commands) -> None:
    first = commands.token("add", "ci", "--role", "viewer")
    assert "until it is revoked" in commands.access("list").stdout
    told = commands.access("rotate", "ci", "--grace", "2h")
    assert told.exit_code == 0, told.output
    assert "shown this once" in told.stdout
    assert "the one of before" in told.stdout
    assert commands.flags("list", PENUMBRA_TOKEN=first).exit_code == 0
    assert commands.access("revoke", "ci", "-m", "gone").stdout == "ci (viewer) is revoked\n"
    again = commands.flags("list", PENUMBRA_TOKEN=first)
    assert again.exit_code == 5
    assert "revoked" in again.stderr
    assert commands.access("revoke", "ci").exit_code == 1
    assert commands.access("add", "ci", "--role", "viewer", "--expires", "soon").exit_code == 2


def test_revocation_is_in_force_at_a_standby_and_after_a_restart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'shared' / 'penumbra.db'}"
    for name in "ab":
        (tmp_path / name).mkdir()
    a, b = (ControlProcess(tmp_path / name, settings={"store": store}) for name in "ab")
    with ExitStack() as stack:
        stack.enter_context(a)
        b.start(stands_by=True)
        stack.push(b.__exit__)
        commands = Commands(a)
        token = commands.token("add", "alice", "--role", "viewer")

        def status(control: ControlProcess) -> int:
            shown = {"authorization": f"Bearer {token}"}
            return httpx.get(f"{control.url}/admin/v1/flags", headers=shown).status_code

        eventually(
            lambda: status(b) == 200, timeout=LOOK_SECONDS, what="the standby to let alice in"
        )
        assert Commands(b).access("revoke", "alice").exit_code == 1  # not the leader
        assert commands.access("revoke", "alice").exit_code == 0
        assert status(a) == 401
        eventually(lambda: status(b) == 401, timeout=LOOK_SECONDS, what="the standby to refuse her")
        assert a.stop() == 0
        a.start(stands_by=True)
        assert status(a) == 401
        assert token not in a.log_text() + b.log_text()
