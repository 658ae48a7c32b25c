"""`penumbra check`: each problem of a configuration, this machine and the store; starts nothing."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from penumbra.serve.cli.main import app
from tests.support.control_process import ADMIN, ControlProcess, external
from tests.support.gateway_process import free_port

WITHOUT_INT8 = external(full="http://127.0.0.1:1", int4="http://127.0.0.1:3")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlProcess]:
    """A store in which int8 has a pin, a rule, a share and, of another model, a rollout."""
    models = {"demo": external(), "other": external()}
    with ControlProcess(tmp_path_factory.mktemp("lived"), models) as control:
        rule = {"name": "beta", "match": {"tenants": ["acme"]}, "variant": "int8"}
        flag = {
            "pins": [{"kind": "tenant", "subject": "acme", "variant": "int8"}],
            "rules": [rule],
            "split": {"int8": 5.0},
        }
        headers = {"authorization": f"Bearer {ADMIN}"}
        answer = control.client.put(
            "/flags/demo",
            json={"flag": flag, "reason": "test"},
            headers={**headers, "if-match": "1"},
        )
        assert answer.status_code == 200, answer.text
        spec = {"model": "other", "candidate": "int8"}
        answer = control.client.put(
            "/rollouts", json={"spec": spec, "reason": "test"}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        control.stop()
        yield control


def write(folder: Path, models: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A configuration whose ports are free."""
    first = free_port(in_a_row=5)
    config = {
        "models": models or {"demo": external()},
        "gateway": {"port": first, "internal_port": first + 1},
        "control": {"port": first + 2, **settings.pop("control", {})},
        "shadow": {"internal_port": first + 3},
        **settings,
    }
    file = folder / "penumbra.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def check(file: Path, **environment: str) -> Result:
    return CliRunner().invoke(app, ["check", "-f", str(file), "--json"], env=environment)


def problems(file: Path, **environment: str) -> list[str]:
    result = check(file, **environment)
    assert result.exit_code == 1, result.output
    found: list[str] = json.loads(result.stdout)["problems"]
    return found


def test_a_sound_configuration_has_no_problems_and_nothing_is_made(tmp_path: Path) -> None:
    file = write(tmp_path)
    result = check(file)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"problems": [], "notes": []}
    assert list(tmp_path.iterdir()) == [file]
    said = CliRunner().invoke(app, ["check", "-f", str(file)])
    assert said.stdout == f"{file}: nothing stands in the way.\n"


def test_every_problem_of_the_file_and_the_machine_is_named_at_once(tmp_path: Path) -> None:
    models = {"demo": external()}
    models["demo"]["variants"]["int8"]["api_key_env"] = "SOME_SERVERS_KEY"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = write(tmp_path, models, control={"port": port})
        found = problems(file, PENUMBRA_ADMIN_TOKEN_FILE=str(tmp_path / "none"))
    assert any(f"control.port: found {port} on 127.0.0.1" in each for each in found)
    assert any("found no variable SOME_SERVERS_KEY" in each for each in found)
    assert any("PENUMBRA_ADMIN_TOKEN_FILE: cannot read" in each for each in found)
    assert len(found) == 3


def test_a_file_that_cannot_be_used_is_told_with_every_place(tmp_path: Path) -> None:
    models = {"demo": {**external(), "flag": {"split": {"nosuch": 5.0}}}}
    [found] = problems(write(tmp_path, models))
    assert 'models.demo.flag.split: found "nosuch", wanted one of int8' in found
    [missing] = problems(tmp_path / "nosuch.yaml")
    assert "nosuch.yaml" in missing


def test_a_database_that_does_not_answer_is_a_problem_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://op:secret@127.0.0.1:{free_port()}/penumbra"
    [found] = problems(write(tmp_path), PENUMBRA_STORE_URL=url)
    assert "control.store (127.0.0.1): the store cannot be read" in found
    assert "secret" not in found


def test_a_file_that_is_no_store_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("no database, but as long as one has to be to be looked at\n")
    [found] = problems(write(tmp_path, control={"store": "sqlite:///no.db"}))
    assert "no.db): the store cannot be read: file is not a database" in found


def test_what_the_store_has_of_variants_that_go_away_is_named(
    lived: ControlProcess, tmp_path: Path
) -> None:
    before = lived.store_file.read_bytes()
    models = {"demo": WITHOUT_INT8, "other": WITHOUT_INT8}
    file = write(tmp_path, models, control={"store": f"sqlite:///{lived.store_file}"})
    result = check(file)
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    for place in ("pins[0].variant", "rules[0].variant", "split"):
        assert any(
            f"the stored flag of demo: {place}: found" in each and "int4" in each
            for each in told["problems"]
        ), told
    assert any("the rollout of int8 (other, shadow) ends" in each for each in told["notes"])
    assert lived.store_file.read_bytes() == before


def test_a_configuration_that_fits_its_store_has_no_problems(
    lived: ControlProcess, tmp_path: Path
) -> None:
    models = {"demo": external(), "other": external()}
    file = write(tmp_path, models, control={"store": f"sqlite:///{lived.store_file}"})
    result = check(file)
    assert result.exit_code == 0, result.output


def test_files_of_tls_that_are_no_use_are_named(tmp_path: Path) -> None:
    tls = {"certificate": "none.pem", "key": "none.key"}
    file = write(tmp_path, control={"tls": tls, "ca_file": "no-ca.pem"})
    found = problems(file)
    assert any(each.startswith("control.tls: found ") and "none.pem" in each for each in found)
    assert any(each.startswith("control: ca_file: found ") for each in found)
    assert len(found) == 2
