"""The wheel, built from the sdist and installed without extras, works away from the repository.

Everything is done twice, each time in an empty environment: with the newest versions of the
dependencies, and with the oldest that pyproject.toml allows. Packages come from the index that
pip is configured for.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.behaviours import engine
from tests.support.engine_wire import Engine
from tests.support.gateway_process import ROOT, eventually
from tests.support.installation import Installation
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.timeout(600)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECOYS = ("serve", "router", "deployments", "monitoring")
ENGINE_PACKAGES = {"torch", "ray", "vllm", "numpy", "transformers", "grpc"}
NOT_INHERITED = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
"""The repository is not on the path; and what is imported twice is compiled once."""
BUILD_SECONDS = 120.0
INSTALL_SECONDS = 300.0
COMMAND_SECONDS = 120.0
READY_SECONDS = 120.0
OPEN_STORE = """
import sys
from penumbra.deployments.store.store import Store
Store(sys.argv[1])
"""


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel and its dependencies, and a folder to work in."""

    environment: Path
    folder: Path
    """Has a `router.py`, a `serve.py` and so on: importing one of them ends the process."""

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        (found,) = self.environment.glob("lib/python*/site-packages")
        return found

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run a program of the environment in the folder; returns what it printed."""
        return run([self.environment / "bin" / program, *arguments], self.folder, COMMAND_SECONDS)


def run(command: list[str | Path], folder: Path, seconds: float) -> str:
    """Run a command that has to succeed; returns its output."""
    inherited = {name: text for name, text in os.environ.items() if name not in NOT_INHERITED}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**inherited, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def lower_bounds() -> list[str]:
    """Every dependency at the oldest version that pyproject.toml allows."""
    bounds = []
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        (oldest,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
        bounds.append(f"{requirement.name}=={oldest}")
    return bounds


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the sdist builds: the repository is not at hand."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", folder, "-t"]
    run([*build, "sdist"], ROOT, BUILD_SECONDS)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (sources,) = (path for path in folder.iterdir() if path.is_dir())
    run([*build, "wheel"], sources, BUILD_SECONDS)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session", params=["newest", "oldest"])
def installed(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """A new environment with the wheel, by pip of this environment."""
    environment = tmp_path_factory.mktemp(f"venv-{request.param}") / "venv"
    folder = tmp_path_factory.mktemp(f"elsewhere-{request.param}")
    for name in DECOYS:
        (folder / f"{name}.py").write_text("raise SystemExit('imported a decoy')\n")
    run([sys.executable, "-m", "venv", "--without-pip", environment], folder, COMMAND_SECONDS)
    bounds: list[str | Path] = []
    if request.param == "oldest":
        (folder / "oldest.txt").write_text("\n".join(lower_bounds()))
        bounds = ["--constraint", folder / "oldest.txt"]
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    options = ["--no-compile", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    try:
        run([*pip, "install", *options, *bounds, wheel], folder, INSTALL_SECONDS)
    except AssertionError as error:
        raise AssertionError(
            f"could not install the wheel with the {request.param} versions of its dependencies: "
            f"is the package index that pip is set up for within reach?\n{error}"
        ) from error
    return Installed(environment, folder)


def test_wheel_puts_one_package_into_the_environment(installed: Installed) -> None:
    (metadata,) = installed.site_packages.glob("penumbra_gateway-*.dist-info")
    record = (metadata / "RECORD").read_text().splitlines()
    tops = {line.split("/")[0] for line in record if not line.startswith("../")}
    assert tops == {"penumbra", metadata.name}
    assert not [name for name in DECOYS if (installed.site_packages / name).exists()]
    found = installed.run("python", "-c", "import penumbra.serve as s; print(s.__file__)")
    assert Path(found.strip()).is_relative_to(installed.site_packages)


def test_wheel_needs_no_engine(installed: Installed) -> None:
    present = {path.name for path in installed.site_packages.iterdir()}
    assert not present & ENGINE_PACKAGES


@pytest.mark.parametrize("installed", ["oldest"], indirect=True)
def test_oldest_versions_are_those_of_the_project(installed: Installed) -> None:
    names = [requirement.partition("==")[0] for requirement in lower_bounds()]
    program = "import sys, importlib.metadata as m; print([m.version(n) for n in sys.argv[1:]])"
    found = installed.run("python", "-c", program, *names)
    for requirement, version in zip(lower_bounds(), re.findall(r"'(.+?)'", found), strict=True):
        assert Requirement(requirement).specifier.contains(version), requirement


def test_wheel_command_helps_beside_decoys(installed: Installed) -> None:
    assert "rollout" in installed.run("penumbra", "--help")
    for name in ("up", "flags", "rollout", "keys", "dashboards", "rules"):
        assert "--help" in installed.run("penumbra", name, "--help")


@pytest.mark.parametrize(
    "module", ["penumbra.router", "penumbra.router.shadow", "penumbra.deployments"]
)
def test_wheel_entry_point_helps_beside_decoys(installed: Installed, module: str) -> None:
    assert module in installed.run("python", "-m", module, "--help")


def test_wheel_opens_a_new_store(installed: Installed, tmp_path: Path) -> None:
    file = tmp_path / "penumbra.db"
    installed.run("python", "-c", OPEN_STORE, f"sqlite:///{file}")
    assert file.read_bytes().startswith(b"SQLite format 3")


def test_wheel_writes_the_monitoring_files(installed: Installed, tmp_path: Path) -> None:
    installed.run("penumbra", "dashboards", "--out", tmp_path / "dashboards")
    dashboards = sorted((tmp_path / "dashboards").glob("*.json"))
    assert len(dashboards) == 4
    assert all(json.loads(path.read_text())["panels"] for path in dashboards)
    installed.run("penumbra", "rules", "--out", tmp_path / "monitoring")
    rules = [path.name for path in sorted((tmp_path / "monitoring" / "rules").glob("*.yaml"))]
    assert rules == [path.name for path in sorted((ROOT / "monitoring" / "rules").glob("*.yaml"))]
    for path in (tmp_path / "monitoring").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())


class Elsewhere(Installation):
    """`penumbra up` by an installed wheel."""

    def __init__(self, models: dict[str, Any], folder: Path, installed: Installed) -> None:
        super().__init__(models, folder)
        self._installed = installed

    def command(self, name: str, *arguments: str) -> list[str]:
        program = str(self._installed.environment / "bin" / "penumbra")
        return [program, name, "-f", str(self.config), *arguments]


@pytest.fixture
def urls() -> Iterator[dict[str, str]]:
    """Variant -> where a scripted engine answers for it."""
    servers = [ScriptedUpstream(name, engine(Engine(name))) for name in ("full", "int8")]
    for server in servers:
        server.start()
    yield {server.name: server.url for server in servers}
    for server in servers:
        server.stop()


def test_wheel_serves_over_two_servers_that_run(
    installed: Installed, urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = {name: {"url": url} for name, url in urls.items()}
    models = {"demo": {"baseline": "full", "variants": variants, "flag": {"split": {"int8": 50}}}}
    monkeypatch.chdir(installed.folder)
    for name in NOT_INHERITED:
        monkeypatch.delenv(name, raising=False)
    with Elsewhere(models, tmp_path, installed) as stack:
        stack.start()
        stack.wait_until_ready(READY_SECONDS)
        assert len(stack.processes()) == 4, "up, control, comparator and one gateway"
        url = stack.gateway_url
        # The candidate's share begins with the first lease.
        eventually(lambda: ask(url, "user-0").headers["x-penumbra-reason"] == "SPLIT")
        by_variant = {
            answer.headers["x-penumbra-variant"]: answer
            for answer in (ask(url, f"user-{number}") for number in range(32))
        }
        assert set(by_variant) == {"full", "int8"}
        assert by_variant["int8"].headers["x-penumbra-reason"] == "SPLIT"
        assert all(answer.headers["x-penumbra-epoch"].isdigit() for answer in by_variant.values())
        stack.send(signal.SIGTERM)
        assert stack.wait(COMMAND_SECONDS) == 0, stack.output.read_text()


def ask(url: str, user: str) -> httpx.Response:
    """One chat completion that has to succeed."""
    answer = httpx.post(f"{url}{CHAT}", json=chat(), headers={"x-user-id": user}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    return answer
