"""Copies of a SQLite store: online backup, restore, and export of any store as JSON lines."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from penumbra.deployments.errors import Conflict, StoreUnavailable
from penumbra.deployments.store.store import Store

_PAGES_A_STEP = 1024
_EXPORT_PAGE = 500
_TABLES = ("events", "identity")
"""Tables without which a file is no store."""

CopyProgress = Callable[[int, int], None]
"""Called with the pages that are copied, and the pages in all."""


def sqlite_file(url: str) -> Path:
    """Return the file of a SQLite store.

    Raises:
        Conflict: It is another database; says how that is copied.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        name = parsed.database
        raise Conflict(
            f"this store is in {parsed.get_backend_name()}: copy it with the database's own means,"
            f" `pg_dump --format=custom {name}` and `pg_restore --clean`, or its log"
        )
    return Path(str(parsed.database))


def backup(source: Path, target: Path, progress: CopyProgress = lambda done, all_: None) -> None:
    """Copy a SQLite store consistently, also while it is written to.

    The copy is checked before it gets its name, so that a file `target` is whole.

    Raises:
        Conflict: `target` exists.
        StoreUnavailable: The store cannot be read, or the copy cannot be written.
    """
    if target.exists():
        raise Conflict(f"{target} exists: name a new file")
    if not source.is_file():
        raise StoreUnavailable(f"{source}: there is no store")
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        descriptor = os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        os.close(descriptor)
        with closing(sqlite3.connect(source)) as own, closing(sqlite3.connect(unfinished)) as copy:
            own.backup(
                copy,
                pages=_PAGES_A_STEP,
                progress=lambda _, left, pages: progress(pages - left, pages),
            )
        require_store(unfinished)
        unfinished.replace(target)
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"the store cannot be copied to {target}: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def restore(copy: Path, target: Path, kept: Path) -> None:
    """Put a copy in the place of a SQLite store; the present one is kept under another name.

    Args:
        copy: A backup; it stays as it is.
        target: The store's file. No process may have it open.
        kept: Name for the present store, if there is one.

    Raises:
        Conflict: `kept` exists.
        StoreUnavailable: The copy is damaged or no store, or a file cannot be written; the present
            store is as it was.
    """
    if kept.exists():
        raise Conflict(f"{kept} exists: move it away first")
    require_store(copy)
    fresh = target.with_name(f"{target.name}.restored")
    fresh.unlink(missing_ok=True)
    backup(copy, fresh)
    try:
        with closing(sqlite3.connect(fresh)) as new, new:
            # A copy may be of a store that was led, or was put aside by another restore.
            if new.execute("SELECT 1 FROM sqlite_master WHERE name = 'leadership'").fetchone():
                new.execute("UPDATE leadership SET until = 0")
        if target.exists():
            # What is still in the write-ahead log belongs to the store that is kept.
            with closing(sqlite3.connect(target)) as old:
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            target.replace(kept)
        for ending in ("-wal", "-shm"):
            target.with_name(target.name + ending).unlink(missing_ok=True)
        fresh.replace(target)
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"{target} cannot be replaced: {error}") from error


def require_store(file: Path) -> None:
    """Check that a file is a SQLite store, and whole.

    Raises:
        StoreUnavailable: It is not; says what was found.
    """
    if not file.is_file():
        raise StoreUnavailable(f"{file}: there is no such file")
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            [found] = database.execute("PRAGMA integrity_check(1)").fetchone()
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        raise StoreUnavailable(f"{file} is no SQLite database, or damaged: {error}") from error
    if found != "ok":
        raise StoreUnavailable(f"{file} is damaged: {found}")
    if not set(_TABLES) <= names:
        raise StoreUnavailable(f"{file} is no store of Penumbra: it lacks {', '.join(_TABLES)}")


def export(store: Store) -> Iterator[str]:
    """Yield every row of every table as one line of JSON: `{"table": ..., column: value, ...}`.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    tables = store.look(_tables)
    for table in tables.sorted_tables:
        yield from _lines(store, table)


def _tables(connection: sa.Connection) -> sa.MetaData:
    tables = sa.MetaData()
    tables.reflect(connection)
    return tables


def _lines(store: Store, table: sa.Table) -> Iterator[str]:
    done = 0
    # Page by page, so that no table has to fit into memory and no reader holds a lock for long.
    while rows := store.look(partial(_page, table=table, done=done)):
        for row in rows:
            yield json.dumps({"table": table.name, **row}, default=str)
        done += len(rows)


def _page(connection: sa.Connection, table: sa.Table, done: int) -> list[dict[str, Any]]:
    order = list(table.primary_key.columns) or list(table.columns)
    query = sa.select(table).order_by(*order).limit(_EXPORT_PAGE).offset(done)
    return [dict(row) for row in connection.execute(query).mappings()]
