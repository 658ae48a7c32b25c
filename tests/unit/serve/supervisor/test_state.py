"""The state file: whole, current, and never trusted about a process that is another one now."""

import os
from pathlib import Path

import pytest

from penumbra.serve.errors import NotRunning, StateUnreadable
from penumbra.serve.processes import start_time_of
from penumbra.serve.supervisor.state import (
    Phase,
    ProcessRecord,
    RunState,
    read_running,
    read_state,
    write_state,
)


def state(pid: int, start_time: float) -> RunState:
    return RunState(
        pid=pid,
        start_time=start_time,
        config="/x/penumbra.yaml",
        is_ready=True,
        gateway_url="http://127.0.0.1:8080",
        admin_url="http://127.0.0.1:8090",
        processes=(
            ProcessRecord(
                name="control", pid=1, start_time=2.0, phase=Phase.READY, log="/x/control.log"
            ),
        ),
    )


@pytest.fixture
def mine() -> RunState:
    return state(os.getpid(), start_time_of(os.getpid()))


def test_state_survives_the_file(tmp_path: Path, mine: RunState) -> None:
    write_state(tmp_path / "state.json", mine)
    assert read_state(tmp_path / "state.json") == mine
    assert list(tmp_path.iterdir()) == [tmp_path / "state.json"]


def test_running_supervisor_is_found(tmp_path: Path, mine: RunState) -> None:
    write_state(tmp_path / "state.json", mine)
    assert read_running(tmp_path / "state.json") == mine


def test_no_file_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=r"there is no .*state\.json"):
        read_running(tmp_path / "state.json")


def test_recycled_process_id_is_not_running(tmp_path: Path, mine: RunState) -> None:
    write_state(tmp_path / "state.json", state(mine.pid, mine.start_time - 1000))
    with pytest.raises(NotRunning, match="is not running any more"):
        read_running(tmp_path / "state.json")


@pytest.mark.parametrize("content", ["", "{", "{}", '{"pid": "x"}'])
def test_damaged_file_is_said_to_be(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(StateUnreadable, match="is damaged"):
        read_state(tmp_path / "state.json")


def test_process_is_found_by_its_name(mine: RunState) -> None:
    assert mine.process("control").pid == 1
    with pytest.raises(KeyError):
        mine.process("gateway-0")
