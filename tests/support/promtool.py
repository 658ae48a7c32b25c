"""Runs Prometheus's and Alertmanager's own checkers on files of this repository."""

import shutil
import subprocess
from pathlib import Path

_PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}


def check(program: str, *arguments: str | Path, folder: Path) -> str:
    """Run `promtool` or `amtool` and return what it said.

    Raises:
        AssertionError: It found something wrong, or is not installed.
    """
    found = shutil.which(program)
    assert found, (
        f"{program} is missing: run scripts/system-packages.sh, or install Debian's package "
        f"{_PACKAGES[program]}"
    )
    done = subprocess.run(
        [found, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, (
        f"{program} {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    )
    return done.stdout + done.stderr
