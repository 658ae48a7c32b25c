"""The command line of flags against a real control process."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penumbra.serve.cli.flags import app
from penumbra.serve.cli.rollout import app as rollouts
from tests.support.control_process import ADMIN, VIEWER, ControlProcess


class Cli:
    """`penumbra flags` against a running control process."""

    def __init__(self, control: ControlProcess) -> None:
        self.environment = {
            "PENUMBRA_ADMIN_URL": control.url,
            "PENUMBRA_ADMIN_TOKEN": ADMIN,
            "PENUMBRA_ACTOR": "ann",
            "COLUMNS": "200",
        }

    def __call__(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(app, arguments, env=self.environment | environment)

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def cli(control: ControlProcess) -> Cli:
    return Cli(control)


def test_a_split_is_set_shown_and_in_the_history(cli: Cli) -> None:
    done = cli("set", "demo", "--split", "int8=30", "--reason", "canary")
    assert done.exit_code == 0, done.output
    assert done.stdout == "epoch 2 durable, no gateway connected\n"
    assert cli.json("show", "demo")["flag"]["split"] == {"int8": 30}
    assert "int8 30 %, full 70 %" in cli("list").stdout
    assert "int8 30 %, full 70 %" in cli("show", "demo").stdout
    [item] = cli.json("history", "demo")["items"]
    assert (item["actor"], item["reason"], item["kind"]) == ("ann", "canary", "split")
    assert "split none → int8 30" in cli("history").stdout


def test_kill_and_unkill(cli: Cli) -> None:
    assert cli("kill", "demo", "--reason", "latency").exit_code == 0
    assert "killed" in cli("list").stdout
    again = cli("kill", "demo", "--reason", "latency")
    assert again.stdout == "nothing to change: epoch 2 says so already\n"
    cli("unkill", "demo", "-m", "mended")
    assert cli.json("show", "demo")["flag"]["killed"] is False


def test_pin_and_unpin(cli: Cli) -> None:
    cli("pin", "demo", "int8", "--tenant", "acme", "--reason", "trial")
    cli("pin", "demo", "full", "--key", "user-1", "--reason", "complaint")
    assert len(cli.json("show", "demo")["flag"]["pins"]) == 2
    assert "tenant acme → int8" in cli("show", "demo").stdout
    cli("unpin", "demo", "--tenant", "acme", "--reason", "over")
    assert [pin["kind"] for pin in cli.json("show", "demo")["flag"]["pins"]] == ["key"]
    assert cli("unpin", "demo", "--tenant", "acme", "--reason", "over").exit_code == 1
    assert cli("pin", "demo", "int8", "--reason", "no subject").exit_code == 2


def test_a_whole_flag_comes_from_a_file_and_slices_are_quarantined(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "flag.yaml"
    file.write_text(
        "rules: [{name: vip, match: {tenants: [acme]}, variant: full}]\nsplit: {int8: 5}\n"
    )
    assert cli("set", "demo", "-f", str(file), "--reason", "rules").exit_code == 0
    assert "tenants acme → full" in cli("show", "demo").stdout
    assert cli("set", "demo", "--quarantine", "other", "--reason", "worse").exit_code == 0
    assert "slice other quarantined" in cli("show", "demo").stdout
    flag = cli.json("set", "demo", "--release", "other", "--split", "int8=6", "--reason", "x")
    assert flag["epoch"] == 4
    flag = cli.json("show", "demo")["flag"]
    assert (flag["quarantined"], flag["split"], len(flag["rules"])) == ([], {"int8": 6}, 1)


def test_flags_go_out_as_flagd_json_and_come_back(cli: Cli, tmp_path: Path) -> None:
    cli("set", "demo", "--split", "int8=30", "--reason", "canary")
    file = tmp_path / "flagd.json"
    assert cli("export", "-o", str(file)).exit_code == 0
    assert json.loads(cli("export", "demo").stdout) == json.loads(file.read_text())
    cli("kill", "demo", "--reason", "x")
    assert cli("import", str(file), "--reason", "back").exit_code == 0
    flag = cli.json("show", "demo")["flag"]
    assert (flag["killed"], flag["split"]) == (False, {"int8": 30})


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "expected"),
    [
        (("set", "demo", "--split", "nosuch=1"), {}, 1, 'found "nosuch", wanted one of int8'),
        (("set", "demo", "--split", "int8"), {}, 2, "wanted VARIANT=PERCENT"),
        (("set", "demo", "--split", "int8=many"), {}, 2, "wanted VARIANT=PERCENT"),
        (("set", "demo", "--split", "int8=1", "--split", "int8=2"), {}, 2, "found int8 twice"),
        (("set", "demo"), {}, 2, "nothing to set"),
        (("set", "demo", "-f", "nosuch.yaml"), {}, 1, "No such file"),
        (("kill", "nosuch"), {}, 1, "found no model 'nosuch'"),
        (("kill", "demo"), {"PENUMBRA_ADMIN_TOKEN": VIEWER}, 5, "found the role viewer"),
        (("kill", "demo"), {"PENUMBRA_ADMIN_TOKEN": "wrong"}, 5, "unauthorized"),
        (("kill", "demo"), {"PENUMBRA_ADMIN_URL": "http://127.0.0.1:9"}, 4, "no answer from"),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_status_of_its_kind(
    idle_control: ControlProcess,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    status: int,
    expected: str,
) -> None:
    result = Cli(idle_control)(*arguments, "--reason", "x", **environment)
    assert result.exit_code == status
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_a_running_penumbra_is_found_in_its_state_folder(
    idle_control: ControlProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    environment = {"PENUMBRA_STATE_DIR": str(folder), "PENUMBRA_ADMIN_URL": ""}
    environment["PENUMBRA_ADMIN_TOKEN"] = ""
    missing = CliRunner().invoke(app, ["list"], env=environment)
    assert missing.exit_code == 4
    assert "penumbra up" in missing.stderr
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"admin_url": idle_control.url}))
    assert "admin-token" in CliRunner().invoke(app, ["list"], env=environment).stderr
    (folder / "admin-token").write_text(f"{ADMIN}\n")
    found = CliRunner().invoke(app, ["list"], env=environment)
    assert found.exit_code == 0, found.output
    assert "demo" in found.stdout


def test_the_configuration_says_where_a_control_process_is_and_its_state_folder_the_token(
    idle_control: ControlProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = idle_control.config.parent / ".penumbra"
    (folder / "admin-token").write_text(f"{ADMIN}\n")
    elsewhere = {"PENUMBRA_ADMIN_TOKEN": "", "PENUMBRA_ADMIN_URL": "http://127.0.0.1:9"}
    config = str(idle_control.config)
    for arguments in (("list", "-f", config), ("history", "--config", config)):
        found = CliRunner().invoke(app, arguments, env=elsewhere)
        assert found.exit_code == 0, found.output
    found = CliRunner().invoke(rollouts, ("status", "-f", config), env=elsewhere)
    assert found.exit_code == 0, found.output
    by_url = CliRunner().invoke(
        app, ("list", "--url", idle_control.url), env={"PENUMBRA_ADMIN_TOKEN": ADMIN}
    )
    assert by_url.exit_code == 0, by_url.output
    wrong = CliRunner().invoke(app, ("list", "-f", "nosuch.yaml"), env=elsewhere)
    assert wrong.exit_code == 2


def test_names_beyond_ascii_are_kept_as_they_are(cli: Cli) -> None:
    user = "Zoë-日本"
    done = cli("pin", "demo", "int8", "--key", user, "--reason", "señal", PENUMBRA_ACTOR="Jürgen Ω")
    assert done.exit_code == 0, done.output
    [item] = cli.json("history", "demo")["items"]
    assert (item["actor"], item["reason"]) == ("Jürgen Ω", "señal")
    assert cli.json("show", "demo")["flag"]["pins"][0]["subject"] == user
    assert user in cli("show", "demo", "--json").stdout


def test_a_name_that_looks_like_the_guards_is_refused(cli: Cli) -> None:
    done = cli("kill", "demo", "--reason", "x", PENUMBRA_ACTOR="Ｇuard")
    assert done.exit_code == 1
    assert "stands for no person or tool" in done.stderr


def test_the_history_of_an_unknown_model_is_an_error(cli: Cli) -> None:
    done = cli("history", "nosuch")
    assert done.exit_code == 1
    assert "found no model 'nosuch', wanted" in done.stderr


def test_a_proxy_of_the_environment_is_not_asked(cli: Cli) -> None:
    nowhere = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    assert cli("list", **nowhere).exit_code == 0
