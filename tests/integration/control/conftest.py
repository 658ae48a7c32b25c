from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control_process import ControlProcess


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlProcess]:
    """A running control process with one model, `demo`."""
    with ControlProcess(tmp_path) as process:
        yield process


@pytest.fixture(scope="module")
def idle_control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlProcess]:
    """One for all tests of a module that change nothing."""
    with ControlProcess(tmp_path_factory.mktemp("control")) as process:
        yield process
