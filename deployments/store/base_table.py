"""Table of bases: the evidence of a run up to a report, kept so that the reports can be deleted.

Of each run some are spare, written now and then; at most one is used: reports that it holds were
deleted. Unlike a checkpoint, that one is the only copy.

The functions take an open connection, so that several writes can share one transaction.

Reading order: add, use, used.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

_BASES = sa.Table(
    "evidence_bases",
    sa.MetaData(),
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("shape", sa.String),
    sa.Column("at", sa.String),
    sa.Column("is_used", sa.Boolean),
    sa.Column("payload", sa.LargeBinary),
)


@dataclass(frozen=True, slots=True)
class Base:
    """Evidence of a run up to one report."""

    run: str
    position: int
    """Id of the last report that it holds."""
    shape: str
    """Shape of the classes in it, `kept_objects.shape`."""
    at: datetime
    """When it was written; with a timezone."""
    payload: bytes


def add(connection: sa.Connection, base: Base) -> None:
    """Stores a spare base."""
    own = _BASES.c.run == base.run, _BASES.c.position == base.position
    if connection.execute(sa.select(_BASES.c.run).where(*own)).first() is not None:
        return
    row = {
        "run": base.run,
        "position": base.position,
        "shape": base.shape,
        "at": base.at.isoformat(),
        "is_used": False,
        "payload": base.payload,
    }
    connection.execute(sa.insert(_BASES), row)


def newest(connection: sa.Connection, run: str) -> datetime | None:
    """Reads when the newest base of a run was written; None if there is none."""
    found = connection.execute(sa.select(sa.func.max(_BASES.c.at)).where(_BASES.c.run == run))
    text = found.scalar()
    return None if text is None else datetime.fromisoformat(text)


def redate(connection: sa.Connection, run: str, at: datetime) -> None:
    """Dates the bases of a run that seem to be of a later time back to that time."""
    later = _BASES.c.run == run, _BASES.c.at > at.isoformat()
    connection.execute(sa.update(_BASES).where(*later).values(at=at.isoformat()))


def due(connection: sa.Connection, run: str, before: datetime) -> int | None:
    """Reads the position of the newest spare base of before a time; None if there is none."""
    query = sa.select(sa.func.max(_BASES.c.position)).where(
        _BASES.c.run == run, _BASES.c.at < before.isoformat(), _BASES.c.is_used.is_(False)
    )
    return connection.execute(query).scalar()


def use(connection: sa.Connection, run: str, position: int) -> None:
    """Puts a spare base in place of the reports that it holds, and deletes the older ones."""
    older = _BASES.c.run == run, _BASES.c.position < position
    connection.execute(sa.delete(_BASES).where(*older))
    own = _BASES.c.run == run, _BASES.c.position == position
    connection.execute(sa.update(_BASES).where(*own).values(is_used=True))


def used(connection: sa.Connection, run: str) -> Base | None:
    """Reads the base of a run that is used; None if none of its reports was deleted."""
    query = sa.select(_BASES).where(_BASES.c.run == run, _BASES.c.is_used.is_(True))
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    at = datetime.fromisoformat(row["at"])
    return Base(row["run"], row["position"], row["shape"], at, bytes(row["payload"]))


def used_position(connection: sa.Connection, run: str) -> int:
    """Reads the id of the last report that a run's used base holds; 0 if there is none."""
    query = sa.select(_BASES.c.position).where(_BASES.c.run == run, _BASES.c.is_used.is_(True))
    return connection.execute(query).scalar() or 0


def drop_spares(connection: sa.Connection) -> None:
    """Deletes all spare bases: they may hold reports that were moved or cannot be read."""
    connection.execute(sa.delete(_BASES).where(_BASES.c.is_used.is_(False)))


def keep_only(connection: sa.Connection, runs: Collection[str]) -> None:
    """Deletes the bases of all other runs."""
    connection.execute(sa.delete(_BASES).where(_BASES.c.run.not_in([*runs])))
