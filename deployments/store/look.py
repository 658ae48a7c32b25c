"""A look at a store without opening it for work: nothing is made, upgraded or written."""

from importlib.util import find_spec
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from penumbra.deployments.errors import StoreAway, StoreUnavailable
from penumbra.deployments.evidence.stored_fold import fold_stored
from penumbra.deployments.history.state import EMPTY, State
from penumbra.deployments.store import migrations, postgres
from penumbra.deployments.store.event_rows import event_or_set_aside

_VERSION = sa.table("alembic_version", sa.column("version_num"))
_EVENTS = sa.table("events", sa.column("epoch"))
_DRIVERS = {"postgresql": ("psycopg", "postgres")}
"""Database -> package that its URLs need, and the extra that brings it."""
_SQLITE = "sqlite"


def driver_problem(url: str) -> str | None:
    """Say which package a store's URL needs and this environment lacks; None: it has all."""
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        return "found no URL of a database, wanted one like postgresql+psycopg://USER@HOST/NAME"
    package, extra = _DRIVERS.get(parsed.get_backend_name(), ("", ""))
    if not package or find_spec(package) is not None:
        return None
    return (
        f"found {parsed.drivername} without its package {package}, wanted it installed:"
        f" pip install 'penumbra-gateway[{extra}]'"
    )


def look_at(url: str) -> State | None:
    """Read what a store holds; None: it is empty, or a file that is not there yet.

    Raises:
        StoreAway: The database does not answer, or refuses.
        StoreUnavailable: It cannot be read, or a newer release has written it.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == _SQLITE:
        parsed = parsed.set(
            database=f"file:{quote(str(parsed.database))}", query={"mode": "ro", "uri": "true"}
        )
    engine = sa.create_engine(parsed, poolclass=sa.NullPool, hide_parameters=True)
    postgres.limit_silence(engine)
    try:
        with engine.connect() as connection:
            return _read(connection)
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip()
        raise StoreAway(f"the store cannot be read: {cause}") from error


def _read(connection: sa.Connection) -> State | None:
    names = sa.inspect(connection).get_table_names()
    if _VERSION.name not in names or _EVENTS.name not in names:
        return None
    found = connection.execute(sa.select(_VERSION.c.version_num)).scalar()
    if not migrations.knows(str(found)):
        raise StoreUnavailable(
            f"found the schema {found}, wanted one up to {migrations.newest()}: a newer release"
            " has written this store"
        )
    # All columns that it has: its schema may be that of an earlier release.
    query = sa.select(sa.text("*")).select_from(_EVENTS).order_by(_EVENTS.c.epoch)
    rows = connection.execute(query).mappings()
    return fold_stored(EMPTY, [event_or_set_aside(row) for row in rows])
