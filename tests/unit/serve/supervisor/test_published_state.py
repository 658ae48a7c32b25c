"""The published state: what cannot be written or shown ends nothing, and is written later."""

import errno
import json
import logging
from pathlib import Path

import pytest

from penumbra.serve.supervisor import published_state
from penumbra.serve.supervisor.folder import StateFolder
from penumbra.serve.supervisor.published_state import PublishedState
from penumbra.serve.supervisor.state import RunState

NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


def state(pid: int) -> RunState:
    return RunState(
        pid=pid, start_time=0.0, config="f", is_ready=True, gateway_url="http://g", admin_url="a"
    )


def fail(*_: object) -> None:
    raise NO_ROOM


def written(folder: StateFolder) -> object:
    return json.loads(folder.state.read_text())["pid"]


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path)


def test_a_state_that_cannot_be_written_is_shown_logged_once_and_written_when_there_is_room(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[int] = []
    published = PublishedState(folder, lambda state: shown.append(state.pid), lambda: 0.0)
    published.publish(state(1), {})
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(published_state, "write_state", fail)
        published.publish(state(2), {})
        published.refresh(state(2), {})
        assert (written(folder), shown) == (1, [1, 2, 2])
        assert caplog.messages == ["state_unwritten"]
    with caplog.at_level(logging.INFO):
        published.refresh(state(2), {})
    assert written(folder) == 2
    assert caplog.messages == ["state_unwritten", "state_written"]


def test_a_state_that_is_written_is_not_written_again(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = PublishedState(folder, lambda state: None)
    published.publish(state(1), {})
    monkeypatch.setattr(published_state, "write_state", fail)
    published.refresh(state(1), {})


def test_a_display_that_fails_ends_nothing(
    folder: StateFolder, caplog: pytest.LogCaptureFixture
) -> None:
    published = PublishedState(folder, fail, lambda: 0.0)
    published.publish(state(1), {})
    published.publish(state(2), {})
    assert written(folder) == 2
    assert caplog.messages == ["state_unshown"]
