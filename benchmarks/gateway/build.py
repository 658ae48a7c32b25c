"""Prepares a run: compiles the C tools and installs the peers.

Everything goes to `benchmarks/.build/`, once: a second run only checks that it is there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "benchmarks" / ".build"
_SOURCES = Path(__file__).resolve().parent
_TOOLS = {"upstream": ("upstream.c",), "load": ("load.c", "response.c")}
_INSTALL_SECONDS = 600


class MissingError(Exception):
    """A target cannot be measured on this machine; the text says why."""


def compile_tools() -> None:
    """Compiles the fake upstream and the load generator.

    Raises:
        MissingError: there is no C compiler, or it found a fault.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingError("no C compiler: install gcc (apt-get install gcc libc6-dev)")
    BUILD.mkdir(parents=True, exist_ok=True)
    for tool, names in _TOOLS.items():
        sources = [str(_SOURCES / name) for name in names]
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-o", str(BUILD / tool)]
        _run([compiler, *flags, *sources], f"compiling {tool}")


def ensure_venv(name: str) -> Path:
    """The virtual environment of `requirements/bench-NAME.txt`, installed if it is not there yet.

    Raises:
        MissingError: it cannot be installed.
    """
    requirements = ROOT / "requirements" / f"bench-{name}.txt"
    venv = BUILD / name
    stamp = venv / "installed.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return venv
    print(f"installing {name} into {venv.relative_to(ROOT)} ...", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(venv)], f"making the environment of {name}")
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    # The lock is the whole environment: nothing outside it may come in.
    _run([*pip, "--no-deps", "-r", str(requirements)], f"installing {name}")
    stamp.write_text(digest)
    return venv


def ensure_nginx() -> str:
    """The path of nginx; installed from the distribution's packages when that is allowed.

    Raises:
        MissingError: it is not installed, and this user may not install it.
    """
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found:
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise MissingError("nginx is not installed: apt-get install nginx-light (as root)")
    print("installing nginx-light ...", flush=True)
    _run([apt, "update", "-qq"], "apt-get update")
    _run([apt, "install", "-y", "-qq", "--no-install-recommends", "nginx-light"], "apt-get install")
    installed = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if installed is None:
        raise MissingError("apt-get installed nginx-light, but there is no nginx in /usr/sbin")
    return installed


def _run(command: list[str], what: str) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MissingError(f"{what} took more than {_INSTALL_SECONDS} s") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise MissingError(f"{what} failed: {last[0]}")
