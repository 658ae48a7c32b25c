"""The admin API holds what its OpenAPI document says, whatever is sent: schemathesis, each role.

A real control process with a running rollout is asked for each of its documented routes. Every
status, content type, header and body that it answers has to be documented, and none may be a 5xx.
What is sent is the same at each run: the phases are deterministic, and nothing is kept of the last.

`PUT /flags/{model}/kill` is the replacement of the flag of a model `.../kill`, which names may have
slashes for; so the check of methods that are not documented cannot be used (a test here does it).
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.control_process import (
    ADMIN,
    ALERT,
    GATEWAY,
    OPERATOR,
    VIEWER,
    ControlProcess,
    external,
)
from tests.support.documents import ROOT

SPEC = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 1.0, 100.0],
    "guardrails": [
        {"signal": "displacement", "tolerance": 0.05, "action": "rollback", "share": 0.6},
        {"signal": "failure", "tolerance": 0.01, "action": "rollback", "share": 0.4},
    ],
}
FITTING = '[parameters]\nmodel = "demo"\ncandidate = "int8"\n'
"""Values that exist, so that more than "not found" is reached."""
NEWEST = f'{FITTING}"header.if-match" = "{10**12}"\n'
DOCUMENTED = (
    "status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
NO_FAULT = f"{DOCUMENTED},not_a_server_error"
SEED = "7"
HOOKS = "tests.support.asked_from_anywhere"
ROLES = {
    "no token": "",
    "a gateway": GATEWAY,
    "alerts": ALERT,
    "viewer": VIEWER,
    "operator": OPERATOR,
    "admin": ADMIN,
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlProcess]:
    """A control process with a rollout; it must be sound after all that was asked."""
    models = {"demo": external(), "organisation/other": external()}
    with ControlProcess(tmp_path_factory.mktemp("control"), models) as process:
        begun = process.client.put(
            "/rollouts",
            json={"spec": SPEC, "reason": "test"},
            headers={"authorization": f"Bearer {ADMIN}"},
        )
        assert begun.status_code == 200, begun.text
        yield process
        assert process.role() == "ready"
        assert process.post("/flags/demo/kill", {}).status_code == 200
        assert "request_failed" not in process.log_text()


def ask(
    url: str, folder: Path, token: str, *options: str, config: str = FITTING, checks: str = NO_FAULT
) -> None:
    """Have schemathesis ask; fails with its report."""
    settings = folder / "schemathesis.toml"
    settings.write_text(config)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)),
        *("run", f"{url}/openapi.json", "--checks", checks, "--seed", SEED),
        *("--generation-deterministic", "--no-color", "--suppress-health-check", "all"),
        *("--continue-on-failure", "--warnings", "off", *options),
    ]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    done = subprocess.run(
        command,
        cwd=folder,  # it keeps what it has found in `.schemathesis` there
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": HOOKS},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
    assert "Tested: " in done.stdout


@pytest.mark.timeout(130)
def test_boundary_values_bring_documented_answers_and_no_fault(
    asked: ControlProcess, tmp_path: Path
) -> None:
    ask(asked.url, tmp_path, ADMIN, "--phases", "coverage")


@pytest.mark.timeout(130)
@pytest.mark.parametrize("role", ROLES)
def test_each_role_gets_documented_answers_and_no_fault(
    asked: ControlProcess, tmp_path: Path, role: str
) -> None:
    count = "10" if role == "admin" else "3"
    options = ("--phases", "examples,fuzzing", "--max-examples", count)
    ask(asked.url, tmp_path, ROLES[role], *options, config=NEWEST)


@pytest.mark.timeout(130)
def test_a_standby_answers_as_documented(asked: ControlProcess, tmp_path: Path) -> None:
    standby = ControlProcess(
        tmp_path,
        {"demo": external(), "organisation/other": external()},
        {"store": f"sqlite:///{asked.store_file}"},
    )
    with contextlib.ExitStack() as stack:
        standby.start(stands_by=True)
        stack.push(standby)
        options = ("--phases", "examples,fuzzing", "--max-examples", "3")
        # That it cannot change anything is its documented answer.
        ask(standby.url, tmp_path, ADMIN, *options, checks=DOCUMENTED)
        assert standby.role() == "standby"


def test_a_method_that_a_route_does_not_have_is_told_those_that_it_has(
    asked: ControlProcess,
) -> None:
    answer = httpx.post(f"{asked.url}/admin/v1/history")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert answer.json()["error"]["code"] == "method_not_allowed"
