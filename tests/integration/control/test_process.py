"""Start, end and access rights of the real control process."""

import json
from pathlib import Path

import httpx
import pytest

from tests.support.control_process import (
    ADMIN,
    GATEWAY,
    OPERATOR,
    VIEWER,
    ControlProcess,
    external,
)


def test_only_operators_and_admins_change_flags(control: ControlProcess) -> None:
    refusals = [("wrong", 401), (GATEWAY, 401), (VIEWER, 403)]
    for token, status in refusals:
        assert control.post("/flags/demo/kill", {}, token).status_code == status
    assert control.get("/flags/demo")["epoch"] == 1
    assert control.post("/flags/demo/kill", {}, OPERATOR).status_code == 200
    assert control.post("/flags/demo/unkill", {}, ADMIN).status_code == 200
    assert control.get("/flags/demo")["epoch"] == 3


def test_the_link_wants_the_gateways_token(idle_control: ControlProcess) -> None:
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "authorization": f"Bearer {ADMIN}",
    }
    assert httpx.get(f"{idle_control.url}/gateway/v1/link", headers=upgrade).status_code == 401


def test_sigterm_ends_it_in_order(control: ControlProcess) -> None:
    assert control.stop() == 0
    lines = [json.loads(line) for line in control.log_text().splitlines()]
    assert lines[-1]["event"] == "control_stopped"
    assert ADMIN not in control.log_text()


def test_a_flag_that_lost_its_variant_keeps_it_from_starting_and_the_named_command_helps(
    control: ControlProcess,
) -> None:
    control.split(30)
    control.stop()
    control.configure({"demo": {**external(full="http://f", int4="http://q"), "flag": {}}})
    refused = control.run("--adopt")
    assert refused.returncode == 2
    assert 'split: found "int8", wanted one of int4' in refused.stderr
    command = f"python -m penumbra.deployments --config {control.config} --reset-flag demo"
    assert command in refused.stderr
    reset = control.run("--reset-flag", "demo", "--reason", "int8 is gone", "--adopt")
    assert (reset.returncode, reset.stdout) == (0, "epoch 3: demo has the flag in the file\n")
    control.start(adopts=True)
    assert control.get("/flags/demo")["variants"] == ["full", "int4"]
    kinds = [item["kind"] for item in control.get("/history")["items"]]
    assert kinds == ["config", "split", "reset", "config"]


def test_the_flag_in_the_store_wins_over_the_one_in_the_file(control: ControlProcess) -> None:
    control.split(30)
    control.stop()
    control.configure({"demo": {**external(), "flag": {"split": {"int8": 77}}}})
    control.start()
    assert control.get("/flags/demo")["flag"]["split"] == {"int8": 30}
    assert control.get("/flags/demo")["epoch"] == 2


def test_a_start_with_a_file_of_before_takes_back_nothing_that_was_applied(
    control: ControlProcess,
) -> None:
    models = {"demo": external(full="http://f", int8="http://q", int4="http://r")}
    keys = [{"tenant": "acme", "sha256": "a" * 64}]
    assert control.propose(models, keys=keys).json()["changed"]
    control.stop()
    control.configure({"demo": external(), "late": external()}, keys=[])
    control.start()
    view = control.get("/configuration")
    assert (view["epoch"], [*view["models"]], view["keys"][0]["tenant"]) == (2, ["demo"], "acme")
    assert [*view["models"]["demo"]["variants"]] == ["full", "int8", "int4"]
    [line] = [
        found
        for found in map(json.loads, control.log_text().splitlines())
        if found["event"] == "configuration_differs"
    ]
    assert line["command"] == f"penumbra apply -f {control.config}"
    assert "add model late: baseline full, variants full, int8" in line["steps"]
    assert "remove key aaaaaaaaaaaa of acme: its requests are refused" in line["steps"]


def test_a_flag_that_does_not_fit_what_is_in_force_is_no_reset(control: ControlProcess) -> None:
    control.stop()
    flag = {"split": {"int4": 5}}
    control.configure({"demo": {**external(full="http://f", int4="http://q"), "flag": flag}})
    refused = control.run("--reset-flag", "demo", "--reason", "int8 is gone")
    assert refused.returncode == 2
    assert 'split: found "int4", wanted one of int8' in refused.stderr
    control.start()
    assert control.get("/flags/demo")["epoch"] == 1


def test_a_file_that_is_adopted_is_in_force_after_each_start(control: ControlProcess) -> None:
    control.stop()
    control.configure({"demo": external(), "late": external()})
    control.start(adopts=True)
    assert [*control.get("/configuration")["models"]] == ["demo", "late"]


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ((), {"PENUMBRA_ADMIN_TOKEN": ""}, "PENUMBRA_ADMIN_TOKEN: wanted a token of 16"),
        (("--endpoints", "nosuch.json"), {}, "nosuch.json: found No such file"),
        (("--reset-flag", "demo"), {}, "wants a --reason"),
        (("--reset-flag", "nosuch", "--reason", "x"), {}, "wanted one of: demo"),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], expected: str
) -> None:
    refused = ControlProcess(tmp_path).run(*arguments, **environment)
    assert refused.returncode == 2
    assert expected in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_taken_port_and_a_store_that_cannot_be_opened_are_named(
    control: ControlProcess,
) -> None:
    taken = control.run()
    assert taken.returncode == 2
    assert f"cannot bind 127.0.0.1:{control.port} (control.host, control.port)" in taken.stderr
    control.stop()
    control.store_file.unlink()
    control.store_file.with_name("penumbra.db-wal").unlink(missing_ok=True)
    control.store_file.mkdir()
    closed = control.run()
    assert closed.returncode == 2
    assert "the store cannot be opened" in closed.stderr
