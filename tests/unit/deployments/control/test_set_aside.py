"""Rows that cannot be read: their model gets the baseline, and everything else goes on."""

import sqlite3
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from penumbra.deployments.api.access import Access, Role
from penumbra.deployments.api.app import build_api
from penumbra.deployments.control.access_service import AccessService
from penumbra.deployments.control.controller import Change
from penumbra.deployments.control.stored_evidence import prune
from penumbra.deployments.errors import ModelSetAside, Unauthorized
from penumbra.deployments.evidence.stored_fold import fold_stored
from penumbra.deployments.history.config_effects import draft_of
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.flag_edits import set_killed
from penumbra.deployments.history.set_aside import ACCESS, EVERY_MODEL, SetAside
from penumbra.deployments.history.state import EMPTY
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.store import set_aside_table
from penumbra.deployments.store.observation_tables import reports
from penumbra.deployments.store.store import Store
from penumbra.deployments.store.verify import repair, verify
from tests.support.control_plane import (
    START,
    Plane,
    control_plane,
    lead,
    payload,
    split_change,
    store_url,
)
from tests.support.rollouts import Reporting, pairs, rollout_spec
from tests.support.routing_tables import model
from tests.support.running_rollouts import running_rollouts
from tests.unit.deployments.control.test_fold_before_commit import begun

TWO = payload(demo=model(), other=model())


async def with_splits(folder: Path) -> None:
    """A store in which both models have a live share, from epochs 2 and 3."""
    async with control_plane(folder, config=TWO) as plane:
        await plane.controller.apply(split_change(30))
        await plane.controller.apply(split_change(20, name="other"))


def damage(folder: Path, epoch: int, **columns: object) -> None:
    engine = sa.create_engine(store_url(folder))
    names = [sa.column(name) for name in ("epoch", *columns)]
    with engine.begin() as connection:
        table = sa.table("events", *names)
        connection.execute(sa.update(table).where(table.c.epoch == epoch).values(**columns))
    engine.dispose()


def in_force(plane: Plane, name: str) -> tuple[bool, dict[str, float]]:
    flag = plane.publisher.snapshot.models[name].flag
    return flag.killed, flag.split


@pytest.mark.parametrize(
    "columns",
    [
        {"payload": "{}"},
        {"payload": "{"},
        {"payload": sa.text("CAST(x'7bff7d' AS TEXT)")},
        {"kind": "of-a-newer-release"},
        {"at": "never"},
    ],
)
async def test_a_model_with_a_row_that_cannot_be_read_gets_the_baseline_and_the_other_serves_on(
    tmp_path: Path, columns: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    await with_splits(tmp_path)
    damage(tmp_path, 2, **columns)
    async with control_plane(tmp_path, config=TWO) as plane:
        assert in_force(plane, "demo")[0]
        assert in_force(plane, "other") == (False, {"int8": 20})
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
            "event_set_aside"
        ]
        with pytest.raises(ModelSetAside, match=r"epoch 2 .*penumbra store repair"):
            await plane.controller.apply(split_change(10))
        assert (await plane.controller.apply(split_change(10, name="other"))).is_changed
        kill = Change(Kind.KILL, "ann", "stop", {"demo": set_killed(True)})
        assert (await plane.controller.apply(kill)).is_changed
    async with control_plane(tmp_path, config=TWO) as plane:
        assert in_force(plane, "other") == (False, {"int8": 10})


async def test_a_row_that_is_gone_takes_the_live_shares_of_all_models_back(tmp_path: Path) -> None:
    await with_splits(tmp_path)
    with sqlite3.connect(tmp_path / "penumbra.db") as raw:
        raw.execute("DELETE FROM events WHERE epoch = 2")
    async with control_plane(tmp_path, config=TWO) as plane:
        assert [*plane.controller.state.aside] == [EVERY_MODEL]
        assert plane.controller.state.epoch == 3
        assert in_force(plane, "demo")[0]
        assert in_force(plane, "other")[0]


async def test_a_configuration_that_cannot_be_read_is_made_good_by_the_next_one(
    tmp_path: Path,
) -> None:
    await with_splits(tmp_path)
    damage(tmp_path, 1, payload="{}")
    async with control_plane(tmp_path, config=TWO) as plane:
        assert EVERY_MODEL not in plane.controller.state.aside
        assert {*plane.controller.state.models} == {"demo", "other"}


async def test_a_rollout_that_an_older_release_let_in_ends_no_start_and_no_kill(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path, config=TWO) as plane:
        draft = draft_of(plane.controller.state, begun(rollout_spec(alpha=5e-324)), "ann", "try")
        plane.store.append([draft], 1, START)
    async with running_rollouts(tmp_path) as it:
        state = it.plane.controller.state
        assert "demo" in state.aside
        assert state.rollouts == {}
        kill = Change(Kind.KILL, "ann", "stop", {"demo": set_killed(True)})
        assert (await it.plane.controller.apply(kill)).is_changed


async def test_a_run_with_a_report_that_cannot_be_read_begins_anew_in_shadow(
    tmp_path: Path,
) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        await it.rollouts.take_report(Reporting().of_pairs("run-1", pairs(5, 0.0)))
        with sqlite3.connect(tmp_path / "penumbra.db") as raw:
            raw.execute("UPDATE reports SET payload = '{}'")
        it.rollouts = it.fresh()
        await it.rollouts.start()
        await it.after(1)
        record = it.rollout.record
        assert (record.phase, record.run) == (Phase.SHADOW, "run-2")
        assert "cannot be read" in record.cause


async def test_status_and_readiness_name_what_was_set_aside(tmp_path: Path) -> None:
    await with_splits(tmp_path)
    damage(tmp_path, 2, payload="{}")
    async with control_plane(tmp_path, config=TWO) as plane:
        app = build_api(plane.controller, plane.publisher, Access({Role.VIEWER: "viewer"}, "g"))
        transport, headers = httpx.ASGITransport(app), {"authorization": "Bearer viewer"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://control", headers=headers
        ) as client:
            ready = await client.get("/ready")
            status = (await client.get("/admin/v1/status")).json()
            history = (await client.get("/admin/v1/history")).json()["items"]
            table = (await client.get("/admin/v1/snapshots/3")).json()
    assert ready.status_code == 200
    assert "epoch 2" in ready.json()["set_aside"]["demo"]
    assert status["health"] == "degraded"
    assert "epoch 2" in status["problems"][0]
    assert [item["epoch"] for item in history] == [1, 3]
    assert table["models"]["demo"]["flag"]["killed"]


async def test_rows_of_no_use_are_deleted_after_a_repair_and_not_before(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as it:
        await it.apply()
        reporting = Reporting()
        for start in (1, 10):
            report = reporting.of_pairs("run-1", pairs(3, 0.0, start=start))
            await it.rollouts.take_report(report)
        store = it.plane.store
        damage(tmp_path, 2, payload="{")
        unreadable = fold_stored(EMPTY, store.stored())
        assert prune(store, unreadable, (), START, 10) == 0
        assert store.look(lambda c: len([*reports(c, "run-1")])) == 2
        [bad] = [each for each in store.stored() if isinstance(each, SetAside)]
        store.write(lambda c: set_aside_table.move_events(c, [bad], START))
        repaired = fold_stored(EMPTY, store.stored())
        assert prune(store, repaired, (), START, 10) == 1
        assert store.look(lambda c: len([*reports(c, "run-1")])) == 1  # the newest id stays taken


@pytest.mark.parametrize("columns", [{"payload": "{}"}, {"kind": "of-a-newer-release"}])
async def test_identity_whose_change_cannot_be_read_shuts_identities_out_and_no_model(
    tmp_path: Path, columns: dict[str, str]
) -> None:
    async with control_plane(tmp_path, config=TWO) as plane:
        await plane.controller.apply(split_change(30))
        service = AccessService(plane.controller, lambda: START)
        _, token = await service.add("alice", "admin", None, "ann", "test")
        await service.add("bob", "viewer", None, "ann", "test")
    damage(tmp_path, 4, **columns)  # it may as well have been a revocation of alice
    async with control_plane(tmp_path, config=TWO) as plane:
        access = Access({Role.ADMIN: "admin-token"}, "g-token")
        access.identities = lambda: plane.controller.state.identities
        access.now = lambda: START
        with pytest.raises(Unauthorized, match=r"no identity is let in: epoch 4 "):
            access.identify(f"Bearer {token}", None, Role.VIEWER)
        assert access.identify("Bearer admin-token", None, Role.ADMIN)
        assert in_force(plane, "demo") == (False, {"int8": 30.0})
        assert [*plane.controller.state.aside] == [ACCESS]
    store = lead(Store(store_url(tmp_path)))
    assert repair(store, verify(store), "ann", START) == 1
    store.close()
    async with control_plane(tmp_path, config=TWO) as plane:
        assert not plane.controller.state.aside
        assert in_force(plane, "demo") == (False, {"int8": 30.0})  # the repair killed no model
        assert [*plane.controller.state.identities.by_name] == ["alice"]
