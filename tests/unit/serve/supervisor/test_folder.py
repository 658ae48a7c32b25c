"""The state folder: one owner at a time, and secrets that only their owner reads."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from penumbra.serve.errors import AlreadyRunning
from penumbra.serve.supervisor.folder import (
    COMPARATOR_TOKEN,
    GATEWAY_TOKEN,
    TOKENS,
    StateFolder,
    tail,
)

HOLD = """
import sys
from pathlib import Path
from penumbra.serve.supervisor.folder import StateFolder
folder = StateFolder(Path(sys.argv[1]))
folder.lock()
print("held", flush=True)
sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_second_owner_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=f"process {holder.pid}"):
            StateFolder(tmp_path).lock()
        holder.kill()
        holder.wait()
        mine = StateFolder(tmp_path)
        mine.lock()  # The other lock went with its owner, however that ended.
        mine.unlock()


def test_tokens_are_kept_and_private(tmp_path: Path) -> None:
    first = StateFolder(tmp_path).tokens({})
    assert set(first) == set(TOKENS)
    assert len(set(first.values())) == len(TOKENS) == 4
    assert StateFolder(tmp_path).tokens({}) == first
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}


def test_token_of_the_environment_wins_and_is_not_written(tmp_path: Path) -> None:
    environment = {name: name.lower() for name in TOKENS}
    assert StateFolder(tmp_path).tokens(environment) == environment
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_in_folder", [True, False])
def test_comparators_go_on_sharing_the_token_that_gateways_have_already(
    tmp_path: Path, is_in_folder: bool
) -> None:
    folder, environment = StateFolder(tmp_path), {}
    if is_in_folder:
        folder.private_file(TOKENS[GATEWAY_TOKEN], "token-of-before")
    else:
        environment = {GATEWAY_TOKEN: "token-of-before"}
    for _ in range(2):
        tokens = folder.tokens(environment)
        assert tokens[GATEWAY_TOKEN] == "token-of-before"
        assert COMPARATOR_TOKEN not in tokens
    folder.private_file(TOKENS[COMPARATOR_TOKEN], "token-of-its-own")
    assert folder.tokens(environment)[COMPARATOR_TOKEN] == "token-of-its-own"


def test_private_file_replaces_one_that_others_could_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("old")
    (tmp_path / "x.json").chmod(0o644)
    path = StateFolder(tmp_path).private_file("x.json", "new")
    assert path.read_text() == "new"
    assert mode(path) == 0o600


def test_tail_is_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert tail(log) == ""
    log.write_text("".join(f"{n}\n" for n in range(50_000)))
    assert tail(log, lines=3) == "49997\n49998\n49999"


def test_relative_folder_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = StateFolder(Path("state"))
    os.chdir("/")
    assert folder.log("control") == tmp_path / "state" / "logs" / "control.log"
