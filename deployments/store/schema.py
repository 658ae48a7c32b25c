"""Schema of a store: brought up to date in one transaction, on every database.

Python's SQLite driver begins no transaction before a CREATE TABLE, so each of them would stand by
itself, and a process that is killed between two would leave a schema that is neither old nor new.
The migrations therefore have a connection of their own, with a transaction that is begun by hand.
It holds SQLite's write lock, so of two processes that start at once the second waits for the first.
"""

from typing import Any

import sqlalchemy as sa
from alembic.util.exc import CommandError

from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.store import migrations, postgres

_VERSION = sa.table("alembic_version", sa.column("version_num"))


def bring_up_to_date(engine: sa.Engine) -> None:
    """Bring the schema of a database up to date, or leave it as it was.

    Raises:
        StoreUnavailable: A newer release has written the store.
        SQLAlchemyError: The database failed.
    """
    own = sa.create_engine(engine.url, poolclass=sa.NullPool, hide_parameters=True)
    postgres.limit_silence(own, postgres.PATIENT_SECONDS)
    if engine.dialect.name == "sqlite":
        sa.event.listen(own, "connect", _begin_nothing_by_itself)
        sa.event.listen(own, "begin", _begin)
    _upgrade(own)


def make_durable(connection: Any, busy_milliseconds: int) -> None:
    """Set a connection to SQLite to survive a power cut.

    Args:
        connection: The driver's connection.
        busy_milliseconds: Longest wait for another connection's lock.
    """
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={busy_milliseconds}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _upgrade(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        try:
            migrations.upgrade(connection)
        except CommandError as error:
            found = connection.execute(sa.select(_VERSION.c.version_num)).scalar()
            raise StoreUnavailable(
                f"a newer release of Penumbra has written this store: its schema is {found}, and"
                f" this release knows it up to {migrations.newest()}. Start the newer release, or"
                " restore the copy that was made before the upgrade (docs/backup.md)"
            ) from error


def _begin_nothing_by_itself(connection: Any, record: object) -> None:
    del record
    connection.isolation_level = None
    make_durable(connection, busy_milliseconds=10_000)


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
