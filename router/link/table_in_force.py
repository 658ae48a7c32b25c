"""The routing table that a gateway or comparator has in force, and which ones it takes instead."""

import logging
from collections.abc import Callable

from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.messages import EpochApplied, Push, Refused
from penumbra.router.link.table_identity import Restriction, TableName, restrictions_of

log = logging.getLogger(__name__)


class TableInForce:
    """Puts routing tables into force.

    Args:
        on_snapshot: Puts a table into force; may raise, then the last one stays.
    """

    def __init__(self, on_snapshot: Callable[[Snapshot], None]) -> None:
        self.name = TableName()
        """The table in force; of no store and of epoch 0 before the first that was pushed."""
        self.restrictions: dict[str, Restriction] = {}
        """Model -> what that table takes away."""
        self._on_snapshot = on_snapshot

    def take(self, push: Push) -> EpochApplied | Refused:
        """Take a table: put it into force unless it is the one in force, or may not follow it."""
        try:
            table = push.table()
        except ValueError as error:
            return _refuse(-1, f"not a routing table: {error}")
        name = push.name_of(table)
        objection = self.name.objection_to(name)
        if objection is not None:
            return _refuse(table.epoch, objection)
        if not name.is_same_as(self.name):
            try:
                self._on_snapshot(table)
            except Exception as error:  # noqa: BLE001 - whatever is wrong, serve on with the last
                return _refuse(table.epoch, f"{type(error).__name__}: {error}")
            self.restrictions = restrictions_of(table)
        self.name = name
        return EpochApplied(name.epoch, name.generation, name.digest)


def _refuse(epoch: int, detail: str) -> Refused:
    log.error("snapshot_refused", extra={"epoch": epoch, "detail": detail})
    return Refused(epoch, detail)
