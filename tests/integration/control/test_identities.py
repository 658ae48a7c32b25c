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
from tests.support.control_process import ADMIN, ControlProcess, external
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


SPEC = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 1.0, 100.0],
    "guardrails": [
        {"signal": "displacement", "tolerance": 0.05, "action": "rollback", "share": 0.6},
        {"signal": "failure", "tolerance": 0.01, "action": "rollback", "share": 0.4},
    ],
}
PIN = {"kind": "tenant", "subject": "acme"}
KEYS = [{"tenant": "acme", "sha256": letter * 64} for letter in "ab"]
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/flags/demo/kill", {}),
    ("POST", "/flags/demo/unkill", {}),
    ("POST", "/flags/demo/pin", PIN | {"variant": "full"}),
    ("POST", "/flags/demo/unpin", PIN),
    ("POST", "/flags/demo/split", {"split": {"int8": 5}}),
    ("PUT", "/flags/demo", {"flag": {}}),
    ("PUT", "/flagd", {"flagd": {}}),
    ("PUT", "/rollouts", {"spec": SPEC}),
    ("POST", "/rollouts/int8/hold?model=demo", {}),
    ("POST", "/rollouts/int8/resume?model=demo", {}),
    ("POST", "/rollouts/int8/rollback?model=demo", {}),
    ("POST", "/rollouts/int8/rearm?model=demo", {}),
    ("POST", "/rollouts/int8/end?model=demo", {}),
    ("PUT", "/configuration", {"models": {"demo": external(), "more": external()}, "keys": KEYS}),
    ("POST", f"/configuration/keys/{'b' * 12}/revoke", {}),
    ("POST", "/access", {"name": "bob", "role": "viewer"}),
    ("POST", "/access/bob/rotate", {}),
    ("DELETE", "/access/bob?reason=x", {}),
]
NO_EVENT = {
    "/admin/v1/rollouts/{candidate}/promote",
    "/admin/v1/rollouts/{candidate}/graduate",
    "/admin/v1/alerts",
}
"""Routes of changes that make none here: nothing is to be promoted, and no alert acts."""


def test_every_route_that_changes_something_records_the_identity(
    control: ControlProcess, commands: Commands
) -> None:
    token = commands.token("add", "Zoë", "--role", "admin")
    headers = {"authorization": f"Bearer {token}", "x-penumbra-actor": "mallory"}
    told = httpx.get(f"{control.url}/openapi.json").json()["paths"]
    documented = {
        (method.upper(), path)
        for path, methods in told.items()
        for method in methods
        if method != "get" and path.startswith("/admin/v1") and path not in NO_EVENT
    }
    assert len(documented) == len(CHANGES)  # one that is new here belongs into the table
    for method, path, body in CHANGES:
        more = {"if-match": "999999"} if method == "PUT" and path == "/flags/demo" else {}
        if path == "/flagd":
            body = {"flagd": control.get("/flagd")}
            control.post("/flags/demo/split", {"split": {"int8": 7}})  # so that it changes
        before = control.get("/flags")["epoch"]
        answer = control.client.request(
            method,
            path,
            json=None if method == "DELETE" else {"reason": "test"} | body,
            headers=headers | more,
        )
        assert answer.status_code == 200, (path, answer.text)
        events = control.get(f"/history?after={before}")["items"]
        assert events, path
        for event in events:
            found = event["actor"], event["identity"], event["role"], event["note"]
            assert found == ("Zoë", "Zoë", "admin", "mallory"), (path, event)
