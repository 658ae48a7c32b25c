"""The greatest size of a routing table: no kill, rollback or stage can make a table larger."""

from pathlib import Path

import pytest

from penumbra.deployments.control.controller import Change
from penumbra.deployments.errors import ChangeUnfoldable
from penumbra.deployments.evidence import dry_fold
from penumbra.deployments.history import flag_edits
from penumbra.deployments.history.changes import Edit
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.table_size import greatest_bytes
from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.deployments.rollouts.transitions import replace_fields
from penumbra.router.flags.routing_table import Pin, Scope, Snapshot
from penumbra.router.link.messages import push_of
from tests.support.control_plane import Plane, control_plane, payload
from tests.support.rollouts import rollout_spec
from tests.support.routing_tables import model
from tests.support.running_rollouts import running_rollouts

SMALL = 64 * 1024


@pytest.fixture(autouse=True)
def small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that a test reaches with few changes."""
    monkeypatch.setattr(dry_fold, "TABLE_BYTES", SMALL)


def change(kind: Kind, edit: Edit) -> Change:
    return Change(kind, "ann", "test", {"demo": edit})


async def fill(plane: Plane) -> str:
    """Add pins until one is refused; returns the refusal."""
    for number in range(SMALL):
        edit = flag_edits.add_pin(
            Pin(kind="key", subject=f"user-{number:05}".ljust(256, "x"), variant="int8")
        )
        try:
            await plane.controller.apply(change(Kind.PIN, edit))
        except ChangeUnfoldable as error:
            return error.message
    raise AssertionError("no pin was refused")


def in_phase(rollout: Rollout, phase: Phase) -> Rollout:
    """The rollout with as much in its flag and watch as it may have."""
    slices = rollout.record.slices
    channels = dict.fromkeys(slices, ("chat+image", "completions", "responses+unknown"))
    changes = {
        "phase": phase,
        "stage_index": 1,
        "proven": slices,
        "quarantined": slices[:1],
        "suspects": (AGGREGATE, *slices),
        "released": channels,
    }
    return rollout.model_copy(update={"record": replace_fields(rollout.record, **changes)})


def table_bytes(plane: Plane) -> int:
    table = plane.controller.state.snapshot()
    return len(table.model_dump_json(exclude_defaults=True).encode())


def push_bytes(plane: Plane) -> int:
    """Bytes of the table as it is sent, and of what is told beside it."""
    return len(push_of("", plane.controller.state.snapshot())) - len(
        push_of("", Snapshot(epoch=0, models={}))
    )


async def test_many_small_changes_end_at_the_bound_with_found_and_wanted(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        text = await fill(plane)
        assert f"wanted at most {SMALL}" in text
        assert "found a routing table" in text
        assert "demo" in text
        assert table_bytes(plane) <= SMALL


async def test_a_kill_is_made_whatever_the_size_of_the_table(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        await fill(plane)
        epoch = plane.controller.state.epoch
        outcome = await plane.controller.apply(change(Kind.KILL, flag_edits.set_killed(True)))
        assert outcome.epoch == epoch + 1
        assert plane.controller.state.models["demo"].flag.killed
        assert table_bytes(plane) <= SMALL


async def test_a_full_table_can_be_made_smaller(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        await fill(plane)
        edit = flag_edits.remove_pin("key", "user-00000".ljust(256, "x"))
        assert (await plane.controller.apply(change(Kind.UNPIN, edit))).is_changed


async def test_a_table_of_an_older_store_that_is_too_large_can_still_be_killed_and_made_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with control_plane(tmp_path) as plane:
        await fill(plane)
        monkeypatch.setattr(dry_fold, "TABLE_BYTES", SMALL // 2)
        assert (
            await plane.controller.apply(change(Kind.KILL, flag_edits.set_killed(True)))
        ).is_changed
        edit = flag_edits.remove_pin("key", "user-00000".ljust(256, "x"))
        assert (await plane.controller.apply(change(Kind.UNPIN, edit))).is_changed


@pytest.mark.parametrize("scope", [None, Scope(slices=("json",), tenants=("acme" * 60,))])
async def test_a_rollout_that_has_begun_is_never_stopped_by_the_bound(
    tmp_path: Path, scope: Scope | None
) -> None:
    async with running_rollouts(tmp_path) as running:
        await running.apply(rollout_spec(scope=scope))
        await fill(running.plane)
        controller = running.plane.controller
        size = greatest_bytes(controller.state)
        for phase in (Phase.LIVE, Phase.PROMOTED, Phase.ROLLED_BACK):
            rollout = in_phase(running.rollout, phase)
            await running.rollouts.put(lambda rollout=rollout: rollout, "guard", "test")
            assert running.rollout.record.phase is phase
            assert greatest_bytes(controller.state) == size
            assert table_bytes(running.plane) <= SMALL
            assert push_bytes(running.plane) <= size


async def test_a_rollout_that_could_outgrow_the_link_does_not_begin(tmp_path: Path) -> None:
    async with running_rollouts(tmp_path) as running:
        await fill(running.plane)
        with pytest.raises(ChangeUnfoldable, match="wanted at most"):
            await running.apply()


async def test_a_configuration_of_many_models_is_refused_with_its_largest(tmp_path: Path) -> None:
    models = {f"model-{number:03}": model() for number in range(200)}
    with pytest.raises(ChangeUnfoldable, match=r"model-\d+ \(\d+ bytes\)") as refused:
        async with control_plane(tmp_path, config=payload(**models)):
            pass
    assert f"wanted at most {SMALL}" in refused.value.message
