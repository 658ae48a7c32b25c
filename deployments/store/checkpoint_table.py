"""Table of checkpoints: what a fold of stored rows had come to, and how far.

The functions take an open connection, so that several writes can share one transaction.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

_CHECKPOINTS = sa.Table(
    "checkpoints",
    sa.MetaData(),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("position", sa.BigInteger),
    sa.Column("version", sa.String),
    sa.Column("at", sa.String),
    sa.Column("payload", sa.LargeBinary),
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint."""

    name: str
    """The run whose evidence it is, or `control.checkpoints.STATE`."""
    position: int
    """Id of the last report, or the epoch, that it holds."""
    version: str
    """Version of the code that made it."""
    payload: bytes


def find(connection: sa.Connection, name: str) -> Checkpoint | None:
    """Reads a checkpoint; None if there is none."""
    query = sa.select(_CHECKPOINTS).where(_CHECKPOINTS.c.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    return Checkpoint(row["name"], row["position"], row["version"], bytes(row["payload"]))


def put(connection: sa.Connection, checkpoint: Checkpoint, at: datetime) -> None:
    """Stores a checkpoint in place of the one of its name."""
    connection.execute(sa.delete(_CHECKPOINTS).where(_CHECKPOINTS.c.name == checkpoint.name))
    row = {
        "name": checkpoint.name,
        "position": checkpoint.position,
        "version": checkpoint.version,
        "at": at.isoformat(),
        "payload": checkpoint.payload,
    }
    connection.execute(sa.insert(_CHECKPOINTS), row)


def keep_only(connection: sa.Connection, names: Collection[str]) -> None:
    """Deletes the checkpoints of all other names; they are few."""
    connection.execute(sa.delete(_CHECKPOINTS).where(_CHECKPOINTS.c.name.not_in([*names])))
