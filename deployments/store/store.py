"""Store: the durable log of events, append-only, one writer at a time, on any SQLAlchemy database.

SQLite is set to survive a power cut (write-ahead log, synchronous=FULL). The events that `append`
returned are on disk. All calls block; the controller makes them in a thread of its own.

Only the process that holds the fencing lease writes (`acquire`): every write is refused without it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic.util.exc import CommandError
from msgspec import MsgspecError
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from penumbra.deployments.errors import Conflict, StoreAway, StoreUnavailable
from penumbra.deployments.history.event_digest import NOTHING, Newest, digest_of
from penumbra.deployments.history.events import Draft, Event, Kind
from penumbra.deployments.history.set_aside import SetAside
from penumbra.deployments.store import (
    fencing,
    observation_tables,
    postgres,
    schema,
    set_aside_table,
)
from penumbra.deployments.store.commits import committed
from penumbra.deployments.store.event_rows import event_of, event_or_set_aside
from penumbra.deployments.store.fencing import Leader, Term
from penumbra.deployments.store.observation_tables import CommitExtras
from penumbra.router.bounds import HISTORY_BYTES

T = TypeVar("T")

_metadata = sa.MetaData()
_EVENTS = sa.Table(
    "events",
    _metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.BigInteger),
    sa.Column("at", sa.String),
    sa.Column("actor", sa.String),
    sa.Column("reason", sa.String),
    sa.Column("kind", sa.String),
    sa.Column("model", sa.String),
    sa.Column("payload", sa.Text),
    sa.Column("authority", sa.Text),
)
_IDENTITY = sa.Table("identity", _metadata, sa.Column("store", sa.String, primary_key=True))
_NOTHING = CommitExtras()
_PAGE = 50


class Store:
    """The durable log of events and observations in one database.

    Args:
        url: SQLAlchemy URL.

    Raises:
        StoreAway: The database does not answer, or refuses.
        StoreUnavailable: The store cannot be opened or brought up to date.
    """

    def __init__(self, url: str) -> None:
        with _translate_errors("opened"):
            # pool_pre_ping replaces a connection that broke between two uses. hide_parameters keeps
            # the values out of error texts: users' metadata would get into the log.
            self._engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
            if self._engine.dialect.name == "sqlite":
                _make_folder(self._engine.url)
                sa.event.listen(self._engine, "connect", _make_sqlite_durable)
            postgres.limit_silence(self._engine)
            schema.bring_up_to_date(self._engine)
            with self._engine.connect() as connection:
                self.identity: str = connection.execute(sa.select(_IDENTITY.c.store)).scalar_one()
            self.term: Term | None = None  # the right to write, if this process has it

    # The fencing lease

    def acquire(
        self, holder: str, address: str, seconds: float, seen: Leader | None = None
    ) -> bool:
        """Takes the right to write (`fencing.acquire`), and returns whether this process has it.

        Raises:
            StoreUnavailable: The store does not take writes.
        """
        with _translate_errors("written"), committed(self._engine) as connection:
            term = fencing.acquire(connection, holder, address, seconds, seen)
        self.term = term
        return term is not None

    def renew(self, seconds: float, lease_seconds: float) -> Newest:
        """Renews the right to write: a durable write, and so the proof that the store takes them.

        Returns:
            The newest event, as of the same transaction.

        Raises:
            NotLeader: Another process leads.
            StoreUnavailable: The store does not take writes.
        """
        with _translate_errors("written"), committed(self._engine) as connection:
            fencing.renew(connection, self.term, seconds, lease_seconds)
            return _newest(connection)

    def release(self) -> None:
        """Gives the right to write up, so that another process need not wait.

        Raises:
            StoreUnavailable: The store does not take writes; the lease runs out instead.
        """
        term, self.term = self.term, None
        if term is not None:
            with _translate_errors("written"), committed(self._engine) as connection:
                fencing.release(connection, term)

    def name_at(self, epoch: int) -> str:
        """Reads the digest of the event that made an epoch; empty if there is none.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        query = sa.select(_EVENTS).where(_EVENTS.c.epoch == epoch)
        row = self.look(lambda connection: connection.execute(query).mappings().first())
        return "" if row is None else digest_of(row)

    def events(
        self, after: int = 0, until: int | None = None, model: str | None = None
    ) -> list[Event]:
        """Reads the events with after < epoch <= until, oldest first.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        return self._select(_between(after, until, model).order_by(_EVENTS.c.epoch))

    def stored(self, after: int = 0, until: int | None = None) -> list[Event | SetAside]:
        """Reads the events with after < epoch <= until, and those that cannot be read.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        return self._stored(after, until)[0]

    def stored_since(self, known: Newest) -> tuple[list[Event | SetAside], Newest]:
        """Reads the events after the newest one that is known, and those that cannot be read.

        Returns:
            Them, oldest first, and the newest row of the events, readable or not.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        found, newest = self._stored(known.epoch, None)
        return found, newest or known

    def page(self, after: int, limit: int, model: str | None = None) -> list[Event]:
        """Reads at most `limit` events with epoch > after, oldest first, but for unreadable ones.

        They are fewer where they are large (`HISTORY_BYTES`).

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        query = _between(after, None, model).order_by(_EVENTS.c.epoch)
        return self._select_readable(query.limit(limit))

    def latest(self, limit: int, model: str | None = None) -> list[Event]:
        """Reads the last `limit` events, oldest first, but for unreadable ones; fewer as by `page`.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        query = _between(0, None, model).order_by(_EVENTS.c.epoch.desc()).limit(limit)
        return self._select_readable(query)[::-1]

    def backwards(self, model: str, kind: Kind) -> Iterator[Event]:
        """Yields the events of one kind of a model, newest first, reading them page by page.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        query = _between(0, None, model).where(_EVENTS.c.kind == kind.value)
        query = query.order_by(_EVENTS.c.epoch.desc()).execution_options(yield_per=_PAGE)
        with _translate_errors("read"), self._engine.connect() as connection:
            for row in connection.execute(query).mappings():
                if isinstance(found := event_or_set_aside(row), Event):
                    yield found

    def append(
        self,
        drafts: Sequence[Draft],
        expected_epoch: int,
        at: datetime,
        extras: CommitExtras = _NOTHING,
    ) -> list[Event]:
        """Stores all of `drafts` and `extras`, or nothing; once this returns, they are durable.

        Args:
            drafts: The events, in order.
            expected_epoch: The store's epoch as the writer knows it.
            at: Time of the events, with a timezone.
            extras: Reports and judgements of the same transaction.

        Raises:
            NotLeader: This process may not write; nothing was stored.
            Conflict: The store is at another epoch: another writer was first.
            StoreUnavailable: Nothing was stored.
            StoreInDoubt: The answer to the commit was lost: read before writing again.
        """
        events = [
            Event.of(draft, expected_epoch + number, at)
            for number, draft in enumerate(drafts, start=1)
        ]
        with _translate_errors("written"):
            try:
                with self._writing() as connection:
                    _require_epoch(connection, expected_epoch)
                    observation_tables.insert(connection, extras, at)
                    if events:
                        connection.execute(sa.insert(_EVENTS), [_row(event) for event in events])
            except IntegrityError as error:
                raise Conflict(f"epoch {expected_epoch + 1} was taken by another writer") from error
        return events

    def look(self, work: Callable[[sa.Connection], T]) -> T:
        """Runs a function that reads.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        with _translate_errors("read"), self._engine.connect() as connection:
            return work(connection)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Runs a function that writes other tables than the events, in a transaction.

        Raises:
            NotLeader: This process may not write; nothing was changed.
            StoreUnavailable: Nothing was changed.
            StoreInDoubt: The answer to the commit was lost.
        """
        with _translate_errors("written"), self._writing() as connection:
            return work(connection)

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with committed(self._engine) as connection:
            # First of all: from here on no other process can take over before this is committed.
            fencing.require(connection, self.term)
            yield connection

    def _stored(
        self, after: int, until: int | None
    ) -> tuple[list[Event | SetAside], Newest | None]:
        query = _between(after, until, None).order_by(_EVENTS.c.epoch)
        with _translate_errors("read"), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
            found = [event_or_set_aside(row) for row in rows]
            found += set_aside_table.settled(connection, after, until)
        newest = Newest(rows[-1]["epoch"], digest_of(rows[-1])) if rows else None
        return sorted(found, key=lambda each: each.epoch), newest

    def _select_readable(self, query: sa.Select[Any]) -> list[Event]:
        """Read events until they are many or large: a flag has up to `TABLE_BYTES`, twice."""
        found: list[Event] = []
        size = 0
        with _translate_errors("read"), self._engine.connect() as connection:
            for row in connection.execute(query.execution_options(yield_per=1)).mappings():
                size += len(row["payload"])
                if found and size > HISTORY_BYTES:
                    break
                if isinstance(event := event_or_set_aside(row), Event):
                    found.append(event)
        return found

    def _select(self, query: sa.Select[Any]) -> list[Event]:
        with _translate_errors("read"), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
            return [event_of(row) for row in rows]


def _between(after: int, until: int | None, model: str | None) -> sa.Select[Any]:
    query = sa.select(_EVENTS).where(_EVENTS.c.epoch > after)
    if until is not None:
        query = query.where(_EVENTS.c.epoch <= until)
    if model is not None:
        query = query.where(_EVENTS.c.model == model)
    return query


def _require_epoch(connection: sa.Connection, expected: int) -> None:
    newest = connection.execute(sa.select(sa.func.max(_EVENTS.c.epoch))).scalar() or 0
    # A repair may have moved the newest event away.
    found = max(newest, set_aside_table.last_epoch(connection))
    if found != expected:
        raise Conflict(f"the store is at epoch {found}, this writer at {expected}")


def _newest(connection: sa.Connection) -> Newest:
    query = sa.select(_EVENTS).order_by(_EVENTS.c.epoch.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return NOTHING if row is None else Newest(row["epoch"], digest_of(row))


def _row(event: Event) -> dict[str, Any]:
    columns, payload = event.columns()
    return {**columns, "payload": payload}


def _make_folder(url: sa.URL) -> None:
    if url.database in (None, "", ":memory:"):
        raise StoreUnavailable("found a store in memory, wanted one that lasts: sqlite:///FILE")
    Path(str(url.database)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")


def _make_sqlite_durable(connection: Any, record: object) -> None:
    del record
    # A byte that is no UTF-8 costs the row that has it, not every query that meets it.
    connection.text_factory = _decode
    schema.make_durable(connection, busy_milliseconds=2000)


@contextmanager
def _translate_errors(verb: str) -> Iterator[None]:
    try:
        yield
    except (
        SQLAlchemyError,
        CommandError,
        ValidationError,
        MsgspecError,
        OSError,
        ImportError,
    ) as error:
        # Alembic's error: the schema is newer than this software. Pydantic's and msgspec's: a row
        # is. ImportError: the database's driver is not installed.
        cause = str(getattr(error, "orig", None) or error).strip()
        kind = (
            StoreAway if isinstance(error, OperationalError | InterfaceError) else StoreUnavailable
        )
        raise kind(f"the store cannot be {verb}: {cause}") from error
