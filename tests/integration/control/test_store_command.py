"""`penumbra store`: damaged rows are found and set aside, copies are whole, nothing is deleted."""

import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from penumbra.deployments.errors import Conflict, StoreUnavailable
from penumbra.deployments.history.events import Kind
from penumbra.deployments.store import copies
from penumbra.deployments.store.store import Store
from penumbra.serve.cli.store import app
from tests.support.control_plane import control_plane, split_change, store_url
from tests.support.rollouts import Reporting, pairs
from tests.support.running_rollouts import running_rollouts

CONFIG = """\
state_dir: .
models:
  demo:
    baseline: full
    variants: {full: {url: "http://full.test"}, int8: {url: "http://int8.test"}}
control: {port: PORT}
"""


@pytest.fixture
def port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
async def folder(tmp_path: Path, port: int) -> Path:
    """A configuration, and a store with a live share and a report."""
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        await it.rollouts.take_report(Reporting().of_pairs("run-1", pairs(3, 0.0)))
        await it.rollouts.close()
    (tmp_path / "penumbra.yaml").write_text(CONFIG.replace("PORT", str(port)))
    return tmp_path


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--file", str(folder / "penumbra.yaml")])


def execute(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "penumbra.db")) as raw, raw:
        for statement in statements:
            raw.execute(statement)


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "penumbra.db")) as raw:
        return list(raw.execute(query))


def test_a_whole_store_is_verified_and_needs_no_repair(folder: Path) -> None:
    found = run(folder, "verify", "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert (told["bad_events"], told["bad_reports"], told["reports"]) == ([], [], 1)
    assert "Nothing to repair" in run(folder, "repair").stdout


async def test_what_cannot_be_read_is_named_and_then_set_aside_with_its_models_killed(
    folder: Path,
) -> None:
    execute(
        folder,
        "UPDATE events SET payload = '{\"damaged' WHERE epoch = 2",
        "UPDATE reports SET payload = 'gone'",
    )
    found = run(folder, "verify")
    assert found.exit_code == 1
    assert "demo: epoch 2 of the history (rollout) cannot be read" in found.stdout
    assert "report 1 cannot be read" in found.stdout
    mended = run(folder, "repair")
    assert mended.exit_code == 0, mended.output
    assert "Killed models: demo" in mended.stdout
    kept = rows(folder, "SELECT source, epoch, row FROM set_aside ORDER BY id")
    assert [(source, epoch) for source, epoch, _ in kept] == [("events", 2), ("reports", None)]
    assert "damaged" in str(kept[0][2])
    assert run(folder, "verify").exit_code == 0
    async with control_plane(folder) as plane:
        state = plane.controller.state
        assert (state.aside, state.flags["demo"].killed) == ({}, True)
        last = plane.store.latest(1)[0]
        assert (last.kind, "store repair" in last.reason) == (Kind.KILL, True)
        assert (await plane.controller.apply(split_change(10))).is_changed


async def test_epochs_that_are_gone_are_noted_and_the_history_goes_on(folder: Path) -> None:
    async with control_plane(folder) as plane:
        await plane.controller.apply(split_change(0, reason="no change"))
    execute(
        folder,
        "DELETE FROM events WHERE epoch = 2",
        "INSERT INTO events"
        " (epoch, at, actor, reason, kind, model, payload)"
        " SELECT 5, at, actor, reason, 'kill', 'demo', '{}' FROM events WHERE epoch = 1",
    )
    assert run(folder, "repair").exit_code == 0
    assert run(folder, "verify").exit_code == 0
    async with control_plane(folder) as plane:
        assert (await plane.controller.apply(split_change(10))).is_changed


def test_a_store_without_any_readable_configuration_is_not_repaired(folder: Path) -> None:
    execute(folder, "UPDATE events SET payload = '{}'")
    found = run(folder, "repair")
    assert found.exit_code == 1
    assert "restore a copy" in found.stderr
    assert rows(folder, "SELECT count(*) FROM set_aside") == [(0,)]


@pytest.mark.parametrize("command", [["repair"], ["restore", "copy.db"]])
def test_nothing_is_changed_under_a_running_control_process(
    folder: Path, port: int, command: list[str]
) -> None:
    with closing(socket.socket()) as control:
        control.bind(("127.0.0.1", port))
        control.listen()
        found = run(folder, *command)
    assert found.exit_code == 1
    assert "penumbra down" in found.stderr


def test_a_backup_is_whole_and_can_be_restored_and_the_present_store_is_kept(folder: Path) -> None:
    copy = folder / "copy.db"
    assert run(folder, "backup", str(copy)).exit_code == 0
    assert copy.stat().st_mode & 0o777 == 0o600
    assert "exists" in run(folder, "backup", str(copy)).stderr
    execute(folder, "DELETE FROM events WHERE epoch > 1")
    restored = run(folder, "restore", str(copy))
    assert restored.exit_code == 0, restored.output
    assert len(Store(store_url(folder)).events()) == 2
    [kept] = folder.glob("penumbra.db.before-*")
    with closing(sqlite3.connect(kept)) as old:
        assert old.execute("SELECT count(*) FROM events").fetchone() == (1,)
    assert not [*folder.glob("*.unfinished")]


def test_no_store_is_replaced_under_a_process_that_leads_it_from_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = folder / "copy.db"
    assert run(folder, "backup", str(copy)).exit_code == 0
    monkeypatch.setattr("penumbra.serve.cli.store._WAIT_SECONDS", 0.0)
    with closing(Store(store_url(folder))) as standby:
        assert standby.acquire("standby", "http://elsewhere", 60.0)
        refused = run(folder, "restore", str(copy))
        assert refused.exit_code == 1
        assert "leads this store" in refused.stderr
        standby.release()
        assert run(folder, "restore", str(copy)).exit_code == 0
        # What was put aside is led by none any more, and the copy by the next one.
        assert not standby.acquire("standby", "http://elsewhere", 60.0)
    with closing(Store(store_url(folder))) as restored:
        assert restored.acquire("next", "", 60.0)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_copy_that_is_no_store_or_damaged_is_not_restored(folder: Path, content: bytes) -> None:
    copy = folder / "copy.db"
    copy.write_bytes(content)
    before = (folder / "penumbra.db").read_bytes()
    found = run(folder, "restore", str(copy))
    assert found.exit_code == 1
    assert str(copy) in found.stderr.replace("\n", "")
    assert (folder / "penumbra.db").read_bytes() == before


def test_a_store_elsewhere_says_how_it_is_copied() -> None:
    with pytest.raises(Conflict, match="pg_dump --format=custom flags"):
        copies.sqlite_file("postgresql+psycopg://host/flags")
    with pytest.raises(StoreUnavailable, match="no such file"):
        copies.require_store(Path("/nonexistent/copy.db"))


def test_the_export_has_every_row_of_every_table(folder: Path) -> None:
    lines = [json.loads(line) for line in run(folder, "export").stdout.splitlines()]
    tables = [line["table"] for line in lines]
    assert tables.count("events") == 2
    assert tables.count("reports") == 1
    [event] = [line for line in lines if line["table"] == "events" and line["epoch"] == 2]
    assert json.loads(event["payload"])["after"]["spec"]["candidate"] == "int8"
