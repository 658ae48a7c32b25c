"""Table of handled alert firings, so that no firing acts twice after a restart."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from penumbra.deployments.actors import ALERTMANAGER
from penumbra.deployments.history.alerts import Alert

RETENTION = timedelta(days=90)
"""Time for which a firing is remembered; no unresolved alert is sent again for so long."""

_metadata = sa.MetaData()
_ALERTS = sa.Table(
    "alerts",
    _metadata,
    sa.Column("fingerprint", sa.String, primary_key=True),
    sa.Column("starts_at", sa.String, primary_key=True),
    sa.Column("at", sa.String),
    sa.Column("model", sa.String),
    sa.Column("candidate", sa.String),
)
_EVENTS = sa.table("events", sa.column("actor", sa.String), sa.column("reason", sa.String))


def is_dealt_with(connection: sa.Connection, alert: Alert) -> bool:
    """Returns whether this firing led to a change before, or found everything done."""
    fingerprint, start = alert.firing
    row = sa.select(_ALERTS.c.at).where(
        _ALERTS.c.fingerprint == fingerprint, _ALERTS.c.starts_at == start
    )
    if connection.execute(row).first() is not None:
        return True
    # The change is durable before the row is: after a crash in between, the history knows.
    event = sa.select(_EVENTS.c.actor).where(
        _EVENTS.c.actor == ALERTMANAGER, _EVENTS.c.reason.endswith(alert.mark, autoescape=True)
    )
    return connection.execute(event.limit(1)).first() is not None


def deal_with(connection: sa.Connection, alert: Alert, key: tuple[str, str], at: datetime) -> None:
    """Remembers a firing, and deletes those older than `RETENTION`.

    Args:
        connection: A connection in a transaction.
        alert: The firing, which is not remembered yet.
        key: (model, candidate).
        at: Current time, with a timezone.
    """
    fingerprint, start = alert.firing
    row = {
        "fingerprint": fingerprint,
        "starts_at": start,
        "at": at.isoformat(),
        "model": key[0],
        "candidate": key[1],
    }
    connection.execute(sa.insert(_ALERTS), row)
    connection.execute(sa.delete(_ALERTS).where(_ALERTS.c.at < (at - RETENTION).isoformat()))
