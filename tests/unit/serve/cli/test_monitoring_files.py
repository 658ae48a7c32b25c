"""`penumbra dashboards` and `penumbra rules`: files for Grafana, Prometheus and Alertmanager."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from penumbra.monitoring.package_files import RUNBOOKS
from penumbra.serve.cli.main import main

ROOT = Path(__file__).parents[4]
SHIPPED_DASHBOARDS = ROOT / "monitoring" / "dashboards" / "json"
SHIPPED_RULES = ROOT / "monitoring" / "rules"
OWN_RUNBOOKS = "https://wiki.example.org/penumbra"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    code = left.value.code
    assert isinstance(code, int)
    return code


def constants(file: Path) -> dict[str, str]:
    variables = json.loads(file.read_text())["templating"]["list"]
    return {entry["name"]: entry["query"] for entry in variables if entry["type"] == "constant"}


def alerts(folder: Path) -> list[dict[str, str]]:
    return [
        rule["annotations"]
        for file in folder.glob("*.yaml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


def test_dashboards_writes_the_four_files_and_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grafana" / "penumbra"
    assert run("dashboards", "--out", str(out)) == 0
    names = {"engines.json", "quality.json", "rollout.json", "traffic.json"}
    assert {file.name for file in out.iterdir()} == names
    for name in names:
        assert (out / name).read_bytes() == (SHIPPED_DASHBOARDS / name).read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"wrote {out / name}" for name in sorted(names)]


def test_dashboards_link_to_the_runbooks_of_the_option(tmp_path: Path) -> None:
    assert run("dashboards", "--out", str(tmp_path), "--runbooks", f"{OWN_RUNBOOKS}/") == 0
    for file in tmp_path.iterdir():
        assert constants(file) == {"runbooks": OWN_RUNBOOKS}
        assert RUNBOOKS not in file.read_text()


def test_rules_writes_rules_without_tests_and_the_configurations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rules", "--out", str(tmp_path)) == 0
    shipped = {file.name: file.read_bytes() for file in SHIPPED_RULES.glob("*.yaml")}
    written = {file.name: file.read_bytes() for file in (tmp_path / "rules").iterdir()}
    assert written == shipped
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "rules",
        "prometheus.yaml",
        "alertmanager.yaml",
    }
    assert len(capsys.readouterr().out.splitlines()) == len(shipped) + 2


def test_written_prometheus_configuration_loads_the_written_rules(tmp_path: Path) -> None:
    assert run("rules", "--out", str(tmp_path)) == 0
    (pattern,) = yaml.safe_load((tmp_path / "prometheus.yaml").read_text())["rule_files"]
    assert set(tmp_path.glob(pattern)) == set((tmp_path / "rules").iterdir())


def test_rules_link_to_the_runbooks_of_the_option(tmp_path: Path) -> None:
    assert run("rules", "--out", str(tmp_path), "--runbooks", OWN_RUNBOOKS) == 0
    links = [annotations["runbook_url"] for annotations in alerts(tmp_path / "rules")]
    before = [annotations["runbook_url"] for annotations in alerts(SHIPPED_RULES)]
    assert sorted(links) == sorted(
        link.replace("docs/runbooks/", f"{OWN_RUNBOOKS}/") for link in before
    )
    assert all(link.startswith(OWN_RUNBOOKS) for link in links)


@pytest.mark.parametrize("command", ["dashboards", "rules"])
def test_files_of_an_earlier_run_are_replaced(command: str, tmp_path: Path) -> None:
    assert run(command, "--out", str(tmp_path), "--runbooks", OWN_RUNBOOKS) == 0
    assert run(command, "--out", str(tmp_path)) == 0
    assert not any(
        OWN_RUNBOOKS in file.read_text() for file in tmp_path.rglob("*") if file.is_file()
    )


@pytest.mark.parametrize("command", ["dashboards", "rules"])
@pytest.mark.parametrize("url", ["docs/runbooks", "https://", 'https://a"b', "https://a b"])
def test_runbooks_that_are_no_url_are_refused(
    command: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--out", str(tmp_path), "--runbooks", url) == 2
    assert f'--runbooks: found "{url}", wanted a URL' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["dashboards", "rules"])
def test_file_in_place_of_the_folder_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    assert run(command, "--out", str(file)) == 2
    assert f"--out: found a file at {file}, wanted a folder" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_file_in_place_of_the_folder_for_rules_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules").write_text("mine")
    assert run("rules", "--out", str(tmp_path)) == 2
    assert f"--out: found a file at {tmp_path / 'rules'}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["dashboards", "rules"])
def test_folder_that_cannot_be_made_is_named_with_its_reason(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(command, "--out", str(tmp_path / "file" / "below")) == 2
    said = capsys.readouterr().err
    assert "--out: cannot make the folder" in said
    assert "Not a directory" in said


def test_file_that_cannot_be_written_is_named_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "engines.json").mkdir()
    assert run("dashboards", "--out", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert f"--out: cannot write {tmp_path / 'engines.json'}: Is a directory" in said


@pytest.mark.parametrize("command", ["dashboards", "rules"])
def test_files_are_written_without_the_sdk_and_outside_the_repository(
    command: str, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "sys.modules['grafana_foundation_sdk'] = None\n"
        "from penumbra.serve.cli.main import main\n"
        f"main(['{command}', '--out', 'written'])\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True)
    assert list((tmp_path / "written").iterdir())
