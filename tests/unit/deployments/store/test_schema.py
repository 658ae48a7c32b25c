"""Migrations that are killed, and stores of a newer release."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.store.store import Store
from tests.support.control_plane import lead, store_url
from tests.unit.deployments.store.test_store import AT, draft

STATEMENTS = 12
"""CREATE statements of all migrations, and a little more."""


def killed_at(url: str, number: int) -> bool:
    """Open a store in a child that is killed before this CREATE; returns whether it was."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(*arguments: object) -> None:
            nonlocal seen
            seen += "CREATE" in str(arguments[2])
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sa.event.listen(sa.Engine, "before_cursor_execute", count)
        Store(url)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def tables(folder: Path) -> set[str]:
    file = folder / "penumbra.db"
    with sqlite3.connect(file) as raw:
        return {name for (name,) in raw.execute("SELECT name FROM sqlite_master")}


def test_a_migration_that_is_killed_anywhere_leaves_nothing_and_the_next_start_makes_it_whole(
    tmp_path: Path,
) -> None:
    killed = 0
    for number in range(1, STATEMENTS + 1):
        folder = tmp_path / str(number)
        if not killed_at(store_url(folder), number):
            break
        killed += 1
        assert tables(folder) == set()
        store = Store(store_url(folder))
        assert len(lead(store).append([draft()], 0, AT)) == 1
        store.close()
    assert killed >= 7


def test_an_upgrade_that_is_killed_leaves_the_old_schema(tmp_path: Path) -> None:
    for number in range(1, 6):
        folder = tmp_path / str(number)
        Store(store_url(folder)).close()
        with sqlite3.connect(folder / "penumbra.db") as raw:
            for table in ("alerts", "rollbacks", "feedback", "report_runs", "reports"):
                raw.execute(f"DROP TABLE {table}")
            raw.execute("UPDATE alembic_version SET version_num = '0001'")
        before = tables(folder)
        assert killed_at(store_url(folder), number)
        assert tables(folder) == before
        Store(store_url(folder)).close()
        assert "alerts" in tables(folder)


@pytest.mark.parametrize("made", [("events",), ("events", "identity"), ("events", "reports")])
def test_a_store_that_an_older_release_left_half_made_is_made_whole(
    tmp_path: Path, made: tuple[str, ...]
) -> None:
    Store(store_url(tmp_path)).close()
    with sqlite3.connect(tmp_path / "penumbra.db") as raw:
        for table in {"events", "identity", "reports", "alerts", "feedback"} - set(made):
            raw.execute(f"DROP TABLE {table}")
        raw.execute("DELETE FROM alembic_version")
        if "identity" in made:
            raw.execute("DELETE FROM identity")
    store = Store(store_url(tmp_path))
    assert store.identity
    assert len(lead(store).append([draft()], 0, AT)) == 1


def test_a_store_of_a_newer_release_says_what_to_do(tmp_path: Path) -> None:
    Store(store_url(tmp_path)).close()
    with sqlite3.connect(tmp_path / "penumbra.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreUnavailable, match=r"newer release .* 9999, .*Start the newer release"):
        Store(store_url(tmp_path))
    assert "events" in tables(tmp_path)
