import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penumbra.deployments.errors import Conflict, NotLeader, StoreUnavailable
from penumbra.deployments.history.events import Draft, FlagPayload, Kind
from penumbra.deployments.store import store as store_module
from penumbra.deployments.store.store import Store
from penumbra.router.flags.routing_table import Flag
from tests.support.control_plane import lead, store_url

AT = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def draft(share: float = 1, name: str = "demo", reason: str = "why") -> Draft:
    flag = FlagPayload(before=Flag(), after=Flag(split={"int8": share}))
    return Draft(kind=Kind.SPLIT, actor="ann", reason=reason, model=name, payload=flag)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return lead(Store(store_url(tmp_path)))


def test_events_come_back_as_they_were(store: Store) -> None:
    stored = store.append([draft(1), draft(2)], 0, AT)
    assert [event.epoch for event in stored] == [1, 2]
    assert store.events() == stored
    assert store.events()[0].at == AT


def test_another_process_sees_what_was_appended(store: Store, tmp_path: Path) -> None:
    stored = store.append([draft()], 0, AT)
    other = Store(store_url(tmp_path))
    assert other.events() == stored
    assert other.identity == store.identity


def test_two_stores_have_two_identities(store: Store, tmp_path: Path) -> None:
    assert Store(f"sqlite:///{tmp_path / 'other.db'}").identity != store.identity


def test_of_two_writers_the_later_one_is_refused(store: Store, tmp_path: Path) -> None:
    other = Store(store_url(tmp_path))
    store.append([draft()], 0, AT)
    with pytest.raises(NotLeader):
        other.append([draft()], 0, AT)
    with pytest.raises(Conflict, match="at epoch 1, this writer at 0"):
        lead(other).append([draft()], 0, AT)
    assert len(store.events()) == 1


def test_all_drafts_are_stored_or_none(store: Store, tmp_path: Path) -> None:
    # A trigger refuses the second of two events, as a full disk would.
    raw = sqlite3.connect(tmp_path / "penumbra.db")
    raw.execute(
        "CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.epoch = 2"
        " BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
    )
    raw.commit()
    raw.close()
    with pytest.raises((StoreUnavailable, Conflict)):
        store.append([draft(1), draft(2)], 0, AT)
    assert store.events() == []


def test_a_full_disk_is_an_error_and_stores_nothing(store: Store, tmp_path: Path) -> None:
    store.append([draft()], 0, AT)
    raw = sqlite3.connect(tmp_path / "penumbra.db")
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.close()
    store.close()
    full = lead(Store(store_url(tmp_path)))
    with full._engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        full.append([draft(reason="x" * 1000) for _ in range(200)], 1, AT)
    assert len(full.events()) == 1


def test_sqlite_is_set_to_survive_a_power_cut(store: Store) -> None:
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_pages_and_the_latest_are_in_order(store: Store) -> None:
    store.append([draft(share, "ab"[share % 2]) for share in range(6)], 0, AT)
    assert [event.epoch for event in store.page(2, 3)] == [3, 4, 5]
    assert [event.epoch for event in store.page(0, 9, "a")] == [1, 3, 5]
    assert [event.epoch for event in store.latest(2)] == [5, 6]
    assert [event.epoch for event in store.latest(2, "b")] == [4, 6]
    assert [event.epoch for event in store.events(after=1, until=3)] == [2, 3]


def test_a_page_of_large_events_has_fewer_of_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store.append([draft(share, "a") for share in range(6)], 0, AT)
    size = len(stored[0].columns()[1])
    monkeypatch.setattr(store_module, "HISTORY_BYTES", 3 * size + 10)
    assert [event.epoch for event in store.page(0, 9)] == [1, 2, 3]
    assert [event.epoch for event in store.page(3, 9)] == [4, 5, 6]
    assert [event.epoch for event in store.latest(9)] == [4, 5, 6]
    monkeypatch.setattr(store_module, "HISTORY_BYTES", 1)
    assert [event.epoch for event in store.page(0, 9)] == [1]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////proc/nosuch/penumbra.db", "No such file"),
        ("sqlite://", "wanted one that lasts"),
        ("sqlite:///:memory:", "wanted one that lasts"),
        ("not a URL", "Could not parse"),
        ("nosuch://host/db", "nosuch"),
    ],
)
def test_a_store_that_cannot_be_opened_says_so(url: str, expected: str) -> None:
    with pytest.raises(StoreUnavailable, match=expected):
        Store(url)


def test_the_folder_of_a_store_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path / 'state' / 'penumbra.db'}")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_store_of_a_newer_release_is_left_alone(store: Store, tmp_path: Path) -> None:
    store.close()
    raw = sqlite3.connect(tmp_path / "penumbra.db")
    raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.commit()
    raw.close()
    with pytest.raises(StoreUnavailable, match="9999"):
        Store(store_url(tmp_path))


def test_an_event_that_cannot_be_read_is_an_error(store: Store, tmp_path: Path) -> None:
    store.append([draft()], 0, AT)
    raw = sqlite3.connect(tmp_path / "penumbra.db")
    raw.execute("UPDATE events SET payload = '{}'")
    raw.commit()
    raw.close()
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        store.events()
