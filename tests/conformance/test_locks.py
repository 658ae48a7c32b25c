"""The lock files pin every package, and leave it to the machine's settings where to get it from."""

import json
import re
from pathlib import Path

import pytest

from tests.support.client_installs import NODE, REQUIREMENTS
from tests.support.documents import ROOT

PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+")
REQUIREMENTS_FILES = sorted((ROOT / "requirements").iterdir())
NPM_LOCKS = [NODE / "package-lock.json", ROOT / "scripts" / "pictures" / "package-lock.json"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_lock_of_the_clients_is_among_them() -> None:
    assert REQUIREMENTS in REQUIREMENTS_FILES


@pytest.mark.parametrize("path", REQUIREMENTS_FILES, ids=name)
def test_every_requirement_is_a_pin(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert [line for line in lines if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize("path", NPM_LOCKS, ids=name)
def test_every_npm_package_is_locked_by_its_digest(path: Path) -> None:
    packages = json.loads(path.read_text())["packages"]
    del packages[""]
    assert packages
    assert [at for at, package in packages.items() if "integrity" not in package] == []
    assert [at for at, package in packages.items() if "resolved" in package] == []
