"""The store on PostgreSQL: the same promises as on SQLite."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import NotLeader, StoreUnavailable
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.state import fold
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.store.look import look_at
from penumbra.deployments.store.store import Store
from penumbra.router.flags.tenant_keys import KeySettings
from tests.support.control_plane import lead, payload, split_change
from tests.support.evidence_state import state_of
from tests.support.gateway_process import eventually
from tests.support.postgres import PostgresServer, find_binaries, postgres_server
from tests.support.rollouts import NOW, Reporting, pairs, rollout_spec

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
BINARIES = find_binaries()
if BINARIES is None:
    pytest.skip("PostgreSQL is not installed", allow_module_level=True)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    assert BINARIES is not None
    with postgres_server(BINARIES) as server:
        yield server


def controller(server: PostgresServer) -> Controller:
    store = lead(Store(server.url))
    clocks = Clocks(lambda: datetime.now(UTC), time.monotonic)
    return Controller(store, Publisher(store.identity, time.monotonic), clocks, 1.0)


async def test_changes_survive_and_a_second_writer_is_refused(server: PostgresServer) -> None:
    one = controller(server)
    await one.follow()
    keys = (KeySettings(tenant="acme", sha256="a" * 64),)
    configured = payload().model_copy(update={"keys": keys})
    await one.configure(configured, "configuration")
    two = controller(server)
    await two.follow()
    lead(one._store)
    assert (await one.apply(split_change(30))).epoch == 2
    with pytest.raises(NotLeader):
        await two.apply(split_change(40))
    lead(two._store)
    assert (await two.apply(split_change(40))).epoch == 3
    one.close()
    two.close()
    again = controller(server)
    await again.follow()
    assert again.state == two.state
    assert again.state.keys == keys
    assert await again.read(lambda store: fold(store.events())) == two.state
    again.close()


async def test_reports_roll_back_and_their_evidence_survives(server: PostgresServer) -> None:
    one = controller(server)
    await one.follow()
    await one.configure(payload(), "configuration")
    rollouts = await rollouts_of(one)
    await rollouts.put(
        lambda: operator_actions.apply(one.state, rollout_spec(), "try", NOW, "run"), "ann", "try"
    )
    run = rollouts.rollout(("demo", "int8")).record.run
    reporting = Reporting()
    for _ in range(2):
        report = reporting.of_pairs(run, pairs(5, 0.0))
        await rollouts.take_report(report)
        await rollouts.take_report(report)
    await rollouts.take_report(reporting.of_pairs(run, pairs(30, 0.9, start=100)))
    rolled_back = rollouts.rollout(("demo", "int8"))
    assert rolled_back.record.phase is Phase.ROLLED_BACK
    evidence = state_of(rollouts.evidence_book.evidence(rolled_back))
    await rollouts.close()
    one.close()
    again = controller(server)
    await again.follow()
    rollouts = await rollouts_of(again)
    assert again.state.models["demo"].flag.blocked == ("int8",)
    assert state_of(rollouts.evidence_book.evidence(rollouts.rollout(("demo", "int8")))) == evidence
    await rollouts.close()
    again.close()


async def rollouts_of(plane: Controller) -> RolloutService:
    clocks = Clocks(lambda: datetime.now(UTC), time.monotonic)
    rollouts = RolloutService(plane, clocks, 1.0, "life")
    await rollouts.start()
    return rollouts


async def test_a_server_that_goes_away_is_said_and_its_return_noticed(
    server: PostgresServer,
) -> None:
    plane = controller(server)
    await plane.follow()
    await plane.configure(payload(), "configuration")
    server.stop()
    with pytest.raises(StoreUnavailable):
        await plane.apply(split_change(30))
    assert plane.state.epoch == 1
    server.start()
    assert (await plane.apply(split_change(40))).epoch == 2
    plane.close()


def test_a_leader_that_stands_still_in_a_transaction_is_followed(server: PostgresServer) -> None:
    one, two = lead(Store(server.url)), Store(server.url)

    def stand_still(connection: object) -> None:
        del connection  # which holds the row of the lease
        eventually(
            lambda: _takes(two), timeout=60.0, what="the other process to be let at the lease"
        )

    with pytest.raises(StoreUnavailable):
        one.write(stand_still)
    with pytest.raises(NotLeader):
        one.write(lambda connection: None)
    one.close()
    two.close()


def _takes(store: Store) -> bool:
    try:
        return store.acquire("two", "http://two", 10.0)
    except StoreUnavailable:
        return False


async def test_a_look_reads_what_is_there_and_makes_nothing(server: PostgresServer) -> None:
    assert look_at(server.url) is None
    assert look_at(server.url) is None, "the first look made tables"
    one = controller(server)
    await one.follow()
    await one.configure(payload(), "configuration")
    await one.apply(split_change(30))
    assert look_at(server.url) == one.state
