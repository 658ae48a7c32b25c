"""The table of the firings that were dealt with, so that no restart makes one act twice."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from penumbra.deployments.actors import ALERTMANAGER
from penumbra.deployments.history.alerts import Alert

KEPT = timedelta(days=90)
"""Nobody re-sends an alert for so long without its being resolved in between."""

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
    """Whether this firing led to a change before, or found everything done."""
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
    """Remember a firing, and forget those of long ago.

    Args:
        connection: In a transaction.
        alert: The firing, which is not remembered yet.
        key: (model, candidate).
        at: Now, with a timezone.
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
    connection.execute(sa.delete(_ALERTS).where(_ALERTS.c.at < (at - KEPT).isoformat()))
