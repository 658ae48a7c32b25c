"""Installs the clients of other environments: Node's `openai`, and litellm and lm-eval.

Each goes into a folder of the checkout that git ignores, once: a later run finds the stamp of the
same lock file there. Of several test processes one installs, and the others wait for it.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.documents import ROOT

CACHE = ROOT / ".venvs"
NODE = ROOT / "tests" / "support" / "node"
"""Node resolves packages beside the script that imports them, so `node_modules` is here."""
REQUIREMENTS = ROOT / "requirements" / "clients.txt"
INSTALL_SECONDS = 500.0


def node_client() -> Path:
    """Folder of Node's scripts, with the `openai` client of its lock file installed."""
    npm = program("npm", "npm")
    modules = NODE / "node_modules"

    def install() -> None:
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], NODE)

    _ensure(modules, (NODE / "package-lock.json").read_text(), install)
    return NODE


def python_clients() -> Path:
    """Python of an environment of its own that has litellm and lm-eval."""
    environment = CACHE / "clients"
    python = environment / "bin" / "python"

    def install() -> None:
        _run([sys.executable, "-m", "venv", "--without-pip", str(environment)], ROOT)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        options = ["--no-deps", "--no-compile", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *options, "-r", str(REQUIREMENTS)], ROOT)

    # An environment names its own folder and its interpreter's.
    place = f"{environment} {os.path.realpath(sys.executable)}"
    _ensure(environment, f"{place}\n{REQUIREMENTS.read_text()}", install)
    return python


def program(name: str, package: str) -> str:
    """Path of a program that a client needs.

    Args:
        name: Name of the program.
        package: Debian's package that has it.

    Raises:
        AssertionError: It is not installed.
    """
    found = shutil.which(name)
    assert found, (
        f"{name} is missing: run scripts/system-packages.sh, or install Debian's package {package}"
    )
    return found


def _ensure(folder: Path, wanted: str, install: Callable[[], None]) -> None:
    """Install into a folder, unless its stamp says that the same is there already."""
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    stamp = folder / "installed.sha256"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != digest:
            shutil.rmtree(folder, ignore_errors=True)
            install()
            stamp.write_text(digest)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    assert done.returncode == 0, (
        f"{' '.join(command[:4])} ... failed; is the package registry within reach?\n"
        f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
