"""Table of rows that a repair has moved away, because they cannot be read.

The functions take an open connection. Nothing is ever deleted from this table.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from penumbra.deployments.history.set_aside import SetAside

EVENTS, REPORTS = "events", "reports"

_metadata = sa.MetaData()
_SET_ASIDE = sa.Table(
    "set_aside",
    _metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("source", sa.String),
    sa.Column("epoch", sa.BigInteger),
    sa.Column("model", sa.String),
    sa.Column("kind", sa.String),
    sa.Column("at", sa.String),
    sa.Column("problem", sa.Text),
    sa.Column("row", sa.Text),
)


def settled(connection: sa.Connection, after: int, until: int | None) -> list[SetAside]:
    """Reads the events with after < epoch <= until that a repair has moved away."""
    query = sa.select(_SET_ASIDE).where(_SET_ASIDE.c.source == EVENTS, _SET_ASIDE.c.epoch > after)
    if until is not None:
        query = query.where(_SET_ASIDE.c.epoch <= until)
    return [
        SetAside(row["epoch"], row["model"], row["kind"], row["problem"], is_settled=True)
        for row in connection.execute(query).mappings()
    ]


def last_epoch(connection: sa.Connection) -> int:
    """Reads the last epoch of an event that a repair has moved away; 0 if there is none."""
    query = sa.select(sa.func.max(_SET_ASIDE.c.epoch)).where(_SET_ASIDE.c.source == EVENTS)
    return connection.execute(query).scalar() or 0


def move_events(connection: sa.Connection, found: Iterable[SetAside], at: datetime) -> None:
    """Moves events here; of epochs that have no row, it notes that they are missing."""
    events = sa.Table("events", sa.MetaData(), autoload_with=connection)
    for aside in found:
        rows = connection.execute(sa.select(events).where(events.c.epoch == aside.epoch))
        row = rows.mappings().first()
        connection.execute(sa.insert(_SET_ASIDE), _row(EVENTS, aside, at, dict(row or {})))
        connection.execute(sa.delete(events).where(events.c.epoch == aside.epoch))


def move_reports(connection: sa.Connection, problems: dict[int, str], at: datetime) -> None:
    """Moves reports here, by their ids, with the reason of each."""
    reports = sa.Table("reports", sa.MetaData(), autoload_with=connection)
    runs = sa.Table("report_runs", sa.MetaData(), autoload_with=connection)
    for number, problem in problems.items():
        row = connection.execute(sa.select(reports).where(reports.c.id == number)).mappings().one()
        names = connection.execute(sa.select(runs.c.run).where(runs.c.report == number)).scalars()
        whole = {**row, "runs": [*names]}
        aside = SetAside(0, None, "report", problem)
        connection.execute(sa.insert(_SET_ASIDE), _row(REPORTS, aside, at, whole) | {"epoch": None})
        connection.execute(sa.delete(runs).where(runs.c.report == number))
        connection.execute(sa.delete(reports).where(reports.c.id == number))


def _row(source: str, aside: SetAside, at: datetime, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": source,
        "epoch": aside.epoch,
        "model": aside.model,
        "kind": aside.kind[:32],
        "at": at.isoformat(),
        "problem": aside.problem,
        "row": json.dumps(row, default=str),
    }
