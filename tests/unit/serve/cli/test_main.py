"""The `penumbra` command: quick help, clear refusals, exit statuses for scripts."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from rich.console import Console

from penumbra.serve.cli import report as reporting
from penumbra.serve.cli.main import COMMANDS, main
from penumbra.serve.cli.report import Health, collect, print_report
from penumbra.serve.cli.startup_view import PlainView, summary
from penumbra.serve.errors import EXIT_CODE, ServeError
from penumbra.serve.processes import start_time_of
from penumbra.serve.supervisor.state import (
    Phase,
    ProcessRecord,
    RunState,
    VariantRecord,
    write_state,
)

DEMO_MODEL = Path(__file__).parents[4] / "serve" / "demo" / "model"
CONFIG = """
models:
  demo:
    baseline: full
    variants: {full: {url: "http://127.0.0.1:9"}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "penumbra.yaml"
    file.write_text(CONFIG)
    return file


def running(phase: Phase = Phase.READY, *, is_ready: bool = True) -> RunState:
    gateway = ProcessRecord(
        name="gateway-0", pid=11, start_time=1.0, phase=Phase.READY, log="/x/g.log"
    )
    variant = VariantRecord(
        model="demo",
        variant="full",
        url="http://127.0.0.1:8000/demo-full",
        is_hosted=True,
        phase=phase,
        replicas=1,
        log="/x/full.log",
    )
    return RunState(
        pid=os.getpid(),
        start_time=start_time_of(os.getpid()),
        config="/x/penumbra.yaml",
        is_ready=is_ready,
        gateway_url="http://127.0.0.1:8080",
        admin_url="http://127.0.0.1:8090",
        processes=(gateway,),
        variants=(variant,),
    )


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    code = left.value.code
    assert isinstance(code, int)
    return code


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    code = (
        "import sys\n"
        "from penumbra.serve.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as left:\n    assert left.code == 0\n"
        "heavy = {'ray', 'torch', 'vllm', 'transformers', 'fastapi', 'httpx', 'sqlalchemy'}\n"
        "print('imported', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "imported []" in done.stdout
    for name, (_, words) in COMMANDS.items():
        assert name in done.stdout
        assert words.split()[0] in done.stdout


@pytest.mark.parametrize("name", ["up", "down", "status", "gateway"])
def test_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    assert "--file" in capsys.readouterr().out


def test_version_is_that_of_the_installed_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"penumbra {version('penumbra-gateway')}\n"


def test_quantize_without_its_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    target = tmp_path / "int8"
    assert run("quantize", str(DEMO_MODEL), str(target), "--scheme", "w8a8-int8") == 2
    said = capsys.readouterr().err
    assert "needs safetensors: pip install '.[cpu]'" in said
    assert list(tmp_path.iterdir()) == []


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nope") == 2
    assert "No such command" in capsys.readouterr().err


def test_every_error_has_an_exit_status() -> None:
    pending = [ServeError]
    while pending:
        error = pending.pop()
        assert EXIT_CODE[error.code] > 0
        pending.extend(error.__subclasses__())


@pytest.mark.parametrize("command", ["up", "down", "status", "gateway"])
def test_wrong_configuration_is_shown_with_its_file(
    command: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG.replace("baseline: full", "baseline: fulll"))
    assert run(command, "-f", str(config)) == 2
    assert f'{config}: models.demo.baseline: found "fulll"' in capsys.readouterr().err


def test_status_of_nothing_is_not_running(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "-f", str(config), "--json") == 3
    assert json.loads(capsys.readouterr().out)["health"] == "not_running"
    assert run("status", "-f", str(config)) == 3
    assert "nothing runs here" in capsys.readouterr().err


def test_down_of_nothing_is_not_running(config: Path) -> None:
    assert run("down", "-f", str(config)) == 3


def test_down_leaves_a_recycled_process_alone(config: Path) -> None:
    state = running()
    (config.parent / ".penumbra").mkdir()
    write_state(
        config.parent / ".penumbra" / "state.json",
        state.model_copy(update={"start_time": state.start_time - 1000, "processes": ()}),
    )
    assert run("down", "-f", str(config)) == 3  # And this process is still here to say so.
    assert not (config.parent / ".penumbra" / "state.json").exists()


def test_gateway_index_is_checked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("gateway", "-f", str(config), "--index", "1") == 2
    assert "gateway.processes" in capsys.readouterr().err


def answers(epoch: int | None, gateway_epoch: int | None) -> tuple[object, ...]:
    if epoch is None:
        return {}, {}, {}
    flag = {"killed": False, "split": {}, "rules": [], "pins": []}
    flags = {"epoch": epoch, "flags": [{"model": "demo", "baseline": "full", "flag": flag}]}
    gateways = [] if gateway_epoch is None else [{"gateway": "gateway-0", "epoch": gateway_epoch}]
    return flags, {"gateways": gateways}, {"health": "healthy", "problems": [], "models": []}


@pytest.mark.parametrize(
    ("state", "epoch", "gateway_epoch", "problem"),
    [
        (running(), 7, 7, ""),
        (running(), 7, 6, "gateway-0 is at epoch 6, the newest is 7"),
        (running(), 7, None, "gateway-0 is not connected"),
        (running(), None, None, "the control process does not answer"),
        (running(Phase.RESTARTING), 7, 7, "variant demo/full is restarting"),
        (running(is_ready=False), 7, 7, "still starting"),
    ],
)
def test_health_is_what_every_part_says(
    monkeypatch: pytest.MonkeyPatch,
    state: RunState,
    epoch: int | None,
    gateway_epoch: int | None,
    problem: str,
) -> None:
    monkeypatch.setattr(reporting, "_ask_control", lambda *_: answers(epoch, gateway_epoch))
    report = collect(state, "token")
    assert report.health == (Health.DEGRADED if problem else Health.HEALTHY)
    assert any(problem in found for found in report.problems) == bool(problem)


def test_health_is_what_clients_got(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = "37 % of demo's answers failed in the last minute (5xx of full)"
    got = {"model": "demo", "answers": 1000, "failed": 370, "failed_ratio": 0.37}
    got |= {"refused": 0, "refused_ratio": 0.0, "by_variant": []}
    status = {"health": "degraded", "problems": [problem], "models": [got]}
    monkeypatch.setattr(reporting, "_ask_control", lambda *_: (*answers(7, 7)[:2], status))
    report = collect(running(), "token")
    assert (report.health, report.problems) == (Health.DEGRADED, (problem,))
    print_report(report, Console(width=200))
    said = capsys.readouterr().out
    assert said.startswith("degraded")
    assert problem in said
    assert "370 (37.0%)" in said


def test_plain_view_prints_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView(Console(width=200))
    for state in (
        running(Phase.LOADING, is_ready=False),
        running(Phase.LOADING, is_ready=False),
        running(Phase.WARMING, is_ready=False),
        running(),
        running(),
    ):
        view.observe(state)
    lines = capsys.readouterr().out.splitlines()
    told = [line.split("] ")[1] for line in lines if line.startswith("[")]
    assert told == [
        "demo/full: loading (/x/full.log)",
        "gateway-0: ready (/x/g.log)",
        "demo/full: warming (/x/full.log)",
        "demo/full: ready (/x/full.log)",
        "ready",
    ]
    assert summary(running()).splitlines()[0] in lines
