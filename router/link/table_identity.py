"""Names of routing tables: store, generation, epoch, and the digest of the epoch's event. Pure.

An epoch alone does not name a table. A store that lost its tail (a restored backup, an asynchronous
failover) gives epochs a second time; the digest of the event that made the epoch tells the two
apart, and the control process then gives the store a new generation.
"""

from dataclasses import dataclass

import msgspec

from penumbra.router.flags.routing_table import Flag, Snapshot


@dataclass(frozen=True, slots=True)
class TableName:
    """The name of one routing table."""

    store: str = ""
    """Identity of the store; empty for a table that no store has."""
    generation: int = 1
    epoch: int = 0
    digest: str = ""
    """Digest of the event that made the epoch; empty if an older control process sent the table."""

    def objection_to(self, other: "TableName") -> str | None:
        """Reason why this table, if in force, may not be followed by another; None: it may."""
        if other.store != self.store or other.generation > self.generation:
            return None
        if other.generation < self.generation:
            return f"older than generation {self.generation} of the store, in force here"
        if other.epoch < self.epoch:
            return f"older than epoch {self.epoch}, in force here"
        is_named = self.digest and other.digest
        if other.epoch == self.epoch and is_named and other.digest != self.digest:
            return f"another epoch {self.epoch} than the one in force here"
        return None

    def is_same_as(self, other: "TableName") -> bool:
        """Whether both name one table; a digest that an older process leaves out fits any."""
        return (self.store, self.generation, self.epoch) == (
            other.store,
            other.generation,
            other.epoch,
        ) and (not self.digest or not other.digest or self.digest == other.digest)


class Restriction(msgspec.Struct, frozen=True, omit_defaults=True):
    """Traffic that a model's flag takes away from candidates."""

    killed: bool = False
    blocked: tuple[str, ...] = ()
    """Candidates."""
    quarantined: tuple[str, ...] = ()
    """Slices, of at least one candidate: a control process of before the next two fields keeps them
    on the baseline for all."""
    quarantined_for: dict[str, tuple[str, ...]] = {}
    """Candidate -> slices in which it alone may not answer."""
    quarantined_for_all: tuple[str, ...] | None = None
    """Slices in which none may; None: `quarantined`."""

    @property
    def of_all(self) -> tuple[str, ...]:
        """The slices in which no candidate may answer."""
        known = self.quarantined_for_all
        return self.quarantined if known is None else known


def restrictions_of(table: Snapshot) -> dict[str, Restriction]:
    """The restrictions of a table by model; models without any are left out."""
    found = {name: _restriction_of(model.flag) for name, model in table.models.items()}
    return {name: restriction for name, restriction in found.items() if restriction != _NONE}


def _restriction_of(flag: Flag) -> Restriction:
    own = {name: names for name, names in flag.quarantined_for.items() if names}
    of_all = flag.quarantined if own else None
    return Restriction(flag.killed, flag.blocked, flag.quarantined_for_any, own, of_all)


def store_text(store: str, generation: int) -> str:
    """A store and its generation as one text.

    A gateway of before generations compares this text only, so it takes a table of a new generation
    for one of another store, whatever its epoch.
    """
    return store if generation == 1 else f"{store}/{generation}"


def store_of(text: str) -> str:
    """The store in what `store_text` made."""
    return text.partition("/")[0]


_NONE = Restriction()
