"""Rows of the table of events, read strictly or with what cannot be read set aside."""

from collections.abc import Mapping
from typing import Any

from penumbra.deployments.history.events import Event
from penumbra.deployments.history.set_aside import UNREADABLE, SetAside, problem_of

_COLUMNS = ("epoch", "at", "actor", "reason", "kind", "model")


def event_of(row: Mapping[Any, Any]) -> Event:
    """Reads an event.

    Raises:
        ValueError: The row is damaged, or a newer release has written it.
    """
    columns = {name: row[name] for name in _COLUMNS}
    # A store that is only looked at may be of a release of before the column.
    return Event.stored({**columns, "authority": row.get("authority")}, row["payload"])


def event_or_set_aside(row: Mapping[Any, Any]) -> Event | SetAside:
    """Reads an event; what cannot be read is set aside with the reason."""
    try:
        return event_of(row)
    except UNREADABLE as error:
        model = row["model"] if isinstance(row["model"], str) else None
        return SetAside(row["epoch"], model, str(row["kind"]), problem_of(error))
