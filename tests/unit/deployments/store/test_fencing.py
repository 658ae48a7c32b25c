"""The fencing lease on SQLite: who may write, by the database's clock."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penumbra.deployments.errors import NotLeader
from penumbra.deployments.history.event_digest import NOTHING, digest_of
from penumbra.deployments.history.events import Draft, FlagPayload, Kind
from penumbra.deployments.store import fencing
from penumbra.deployments.store.fencing import Leader
from penumbra.deployments.store.store import Store
from penumbra.router.flags.routing_table import Flag
from tests.support.control_plane import store_url

AT = datetime(2026, 1, 1, tzinfo=UTC)
LONG = 1000.0
KILL = Draft(
    kind=Kind.KILL,
    actor="ann",
    reason="why",
    model="demo",
    payload=FlagPayload(before=Flag(), after=Flag(killed=True)),
)


class Stores:
    """Two processes' views of one store, and the row of the lease."""

    def __init__(self, folder: Path) -> None:
        self.a, self.b = Store(store_url(folder)), Store(store_url(folder))
        self._file = folder / "penumbra.db"

    def row(self) -> Leader:
        return self.b.look(fencing.read)

    def pass_seconds(self, seconds: float) -> None:
        """Let the database's clock be later, as seen from the row."""
        raw = sqlite3.connect(self._file)
        raw.execute(
            "UPDATE leadership SET until = until - ?, renewed_at = renewed_at - ?,"
            " leases_until = leases_until - ?",
            (seconds, seconds, seconds),
        )
        raw.commit()
        raw.close()


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


def test_every_write_is_refused_without_the_lease(stores: Stores) -> None:
    with pytest.raises(NotLeader):
        stores.a.append([KILL], 0, AT)
    with pytest.raises(NotLeader):
        stores.a.write(lambda connection: None)
    with pytest.raises(NotLeader):
        stores.a.renew(LONG, 0.0)
    assert stores.a.events() == []


def test_one_of_two_has_the_lease_until_it_is_out(stores: Stores) -> None:
    assert stores.a.acquire("a", "http://a", LONG)
    assert not stores.b.acquire("b", "http://b", LONG)
    assert (stores.row().address, stores.row().is_over) == ("http://a", False)
    stores.pass_seconds(LONG - 1)
    assert not stores.b.acquire("b", "http://b", LONG)
    stores.pass_seconds(2)
    assert stores.row().is_over
    assert stores.b.acquire("b", "http://b", LONG)


def test_a_holder_whose_lease_was_taken_writes_nothing_and_learns_the_leader(
    stores: Stores,
) -> None:
    assert stores.a.acquire("a", "http://a", 0.0)
    assert stores.b.acquire("b", "http://b", LONG)
    with pytest.raises(NotLeader, match="http://b leads"):
        stores.a.append([KILL], 0, AT)
    with pytest.raises(NotLeader, match="http://b leads"):
        stores.a.renew(LONG, LONG)
    with pytest.raises(NotLeader):
        stores.a.write(lambda connection: connection.exec_driver_sql("DELETE FROM alerts"))
    assert stores.b.events() == []


def test_a_late_holder_goes_on_where_no_other_process_took_the_lease(stores: Stores) -> None:
    assert stores.a.acquire("a", "http://a", 0.0)
    assert stores.row().is_over
    stores.a.append([KILL], 0, AT)
    stores.a.renew(LONG, 0.0)
    assert not stores.b.acquire("b", "http://b", LONG)


def test_a_fence_number_that_is_given_twice_is_still_of_one_holder(stores: Stores) -> None:
    # A store that lost its tail counts its fences on from an older one.
    assert stores.a.acquire("a", "http://a", LONG)
    stores.pass_seconds(LONG + 1)
    raw = sqlite3.connect(stores._file)
    raw.execute("UPDATE leadership SET fence = fence - 1")
    raw.commit()
    raw.close()
    assert stores.b.acquire("b", "http://b", LONG)
    assert stores.row().fence == 1
    with pytest.raises(NotLeader):
        stores.a.append([KILL], 0, AT)


def test_a_lease_that_is_given_up_is_free_at_once(stores: Stores) -> None:
    assert stores.a.acquire("a", "http://a", LONG)
    stores.a.release()
    with pytest.raises(NotLeader):
        stores.a.append([KILL], 0, AT)
    assert stores.b.acquire("b", "http://b", LONG)
    stores.a.release()  # changes nothing: it has none
    assert not stores.row().is_over


def test_a_row_that_was_seen_unchanged_may_be_taken_whatever_the_clock_says(
    stores: Stores,
) -> None:
    assert stores.a.acquire("a", "http://a", LONG)
    seen = stores.row()
    stores.a.renew(LONG + 1, 0.0)
    assert not stores.b.acquire("b", "http://b", LONG, seen)
    assert stores.b.acquire("b", "http://b", LONG, stores.row())


def test_the_next_leader_knows_how_long_gateways_have_leases_of_the_last(stores: Stores) -> None:
    assert stores.a.acquire("a", "http://a", 0.0)
    stores.a.renew(0.0, 0.0)  # no gateway has asked yet
    assert stores.b.acquire("b", "http://b", 0.0)
    assert stores.b.term is not None
    assert stores.b.term.inherited_seconds == 0.0
    stores.b.renew(0.0, 10.0)
    stores.pass_seconds(4.0)
    stores.b.release()
    assert stores.a.acquire("a", "http://a", LONG)
    assert stores.a.term is not None
    assert 4.0 < stores.a.term.inherited_seconds <= 6.0


def test_a_renewal_reads_the_newest_event_with_it(stores: Stores) -> None:
    assert stores.a.acquire("a", "http://a", LONG)
    assert stores.a.renew(LONG, 0.0) == NOTHING
    [event] = stores.a.append([KILL], 0, AT)
    newest = stores.a.renew(LONG, 0.0)
    assert (newest.epoch, newest.digest) == (1, digest_of(dict(event)))
    assert stores.b.name_at(1) == newest.digest
    assert stores.b.name_at(2) == ""
