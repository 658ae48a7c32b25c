"""The fencing lease: one row that says which control process may write, and until when.

A process that leads holds a *term*: a number that grows with every change of leader, and the
process's own id. Every transaction that writes begins by touching the row under its term
(`require`): the database's row lock (SQLite: the file's lock) then keeps a change of leader out
until the transaction is over, and a term that is over matches no row. So a process that was
stopped, cut off or slow can never write after another one has taken over, whatever it believes.

The times in the row are by the *database's* clock, so the machines' clocks need not agree. No lock
is held between transactions: a pooler, or a connection that breaks, strands nothing.

All functions take a connection in a transaction, which `penumbra.deployments.store.postgres` keeps
from standing still: it holds the row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import sqlalchemy as sa

from penumbra.deployments.errors import NotLeader

_ROW = sa.table(
    "leadership",
    *(
        sa.column(name)
        for name in (
            "id",
            "fence",
            "holder",
            "address",
            "renewed_at",
            "until",
            "leases_until",
            "generation",
        )
    ),
)
_NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "cast(extract(epoch from clock_timestamp()) as double precision)",
}
_OTHERS = "cast(extract(epoch from current_timestamp) as double precision)"


@dataclass(frozen=True, slots=True)
class Leader:
    """The row as it was read."""

    fence: int
    holder: str
    """Id of the process's start; empty before the first leader."""
    address: str
    """Base URL at which it answers; may be empty."""
    renewed_at: float
    until: float
    """Unix seconds of the database's clock."""
    generation: int
    is_over: bool
    """Whether the lease was out when the row was read, by the database's clock."""
    leases_until: float = 0.0
    """Until when gateways may have leases, by the same clock; 0: none was ever asked for."""

    @property
    def seconds(self) -> float:
        """Length of the lease as it was renewed last."""
        return max(0.0, self.until - self.renewed_at)

    @property
    def leases_seconds(self) -> float:
        """Time from the last renewal for which gateways may have leases."""
        return max(0.0, self.leases_until - self.renewed_at)

    @property
    def is_given_up(self) -> bool:
        """Whether its holder gave it up."""
        return self.until == 0.0


@dataclass(frozen=True, slots=True)
class Term:
    """The right to write, of one process."""

    fence: int
    holder: str
    generation: int
    """Generation of the store: a store that lost events gets the next one."""
    inherited_seconds: float = 0.0
    """Time for which gateways may still have leases of the leader before; from the acquisition, by
    the database's clock, which may have been set meanwhile."""


def read(connection: sa.Connection) -> Leader:
    """Reads who leads."""
    names = ("fence", "holder", "address", "renewed_at", "until", "generation", "leases_until")
    is_over = (_ROW.c.until <= _now(connection)).label("is_over")
    row = connection.execute(sa.select(*(_ROW.c[name] for name in names), is_over)).mappings().one()
    return Leader(**{**row, "is_over": bool(row["is_over"])})


def acquire(
    connection: sa.Connection,
    holder: str,
    address: str,
    seconds: float,
    seen: Leader | None = None,
) -> Term | None:
    """Takes the lease if it is out.

    Args:
        connection: In a transaction that has written nothing yet.
        holder: Id of this process's start.
        address: Base URL at which it answers.
        seconds: Length of the lease.
        seen: The row that this process has seen unchanged for longer than its lease, by a clock of
            its own: taken too, whatever the database's clock says. That clock may have been set
            back since.

    Returns:
        The new term; None if another process leads.
    """
    now = _now(connection)
    is_free = _ROW.c.until <= now
    if seen is not None:
        is_free |= (
            (_ROW.c.fence == seen.fence)
            & (_ROW.c.holder == seen.holder)
            & (_ROW.c.until == seen.until)
        )
    taken = connection.execute(
        sa.update(_ROW)
        .where(is_free)
        .values(
            fence=_ROW.c.fence + 1,
            holder=holder,
            address=address,
            renewed_at=now,
            until=now + seconds,
        )
    )
    if taken.rowcount != 1:
        return None
    left = (_ROW.c.leases_until - now).label("left")
    fence, generation, inherited = connection.execute(
        sa.select(_ROW.c.fence, _ROW.c.generation, left)
    ).one()
    return Term(fence, holder, generation, max(0.0, float(inherited)))


def renew(
    connection: sa.Connection, term: Term | None, seconds: float, lease_seconds: float
) -> None:
    """Renews the lease; needs no more than that no other process has taken it.

    Args:
        connection: In a transaction that has written nothing yet.
        term: The term that is renewed.
        seconds: Length of the lease from now.
        lease_seconds: Longest lease that gateways may be granted from now on; 0: none was asked
            for yet, and a next leader need not wait for any.

    Raises:
        NotLeader: Another process leads.
    """
    now = _now(connection)
    values = {"renewed_at": now, "until": now + seconds}
    if lease_seconds > 0:
        values["leases_until"] = now + lease_seconds
    _touch(connection, term, values)


def require(connection: sa.Connection, term: Term | None) -> None:
    """Makes sure that this term is the one in force, until the transaction is over.

    Raises:
        NotLeader: Another process leads, or none.
    """
    _touch(connection, term, {"fence": _ROW.c.fence})


def release(connection: sa.Connection, term: Term) -> None:
    """Gives the lease up; nothing happens if another process leads already."""
    connection.execute(sa.update(_ROW).where(*_is_ours(term)).values(until=0.0))


def raise_generation(connection: sa.Connection, term: Term, generation: int) -> Term:
    """Gives the store a new generation, and returns the term with it.

    Raises:
        NotLeader: Another process leads.
    """
    _touch(connection, term, {"generation": generation})
    return replace(term, generation=generation)


def _touch(connection: sa.Connection, term: Term | None, values: Mapping[str, object]) -> None:
    if term is not None:
        own = sa.update(_ROW).where(*_is_ours(term)).values(**values)
        if connection.execute(own).rowcount == 1:
            return
    raise NotLeader.because_of(read(connection).address)


def _is_ours(term: Term) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    # The holder too: a store that lost its tail gives a number a second time.
    return _ROW.c.fence == term.fence, _ROW.c.holder == term.holder


def _now(connection: sa.Connection) -> sa.ColumnElement[float]:
    return sa.literal_column(_NOW.get(connection.dialect.name, _OTHERS), sa.Float(53))
