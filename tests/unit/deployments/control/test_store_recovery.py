"""A store that lost its tail: what was taken away stays so, under a new generation."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penumbra.deployments.actors import CONFIGURATION, RECOVERY
from penumbra.deployments.config.spec import ControlSpec, PenumbraSpec
from penumbra.deployments.control.access_service import AccessService
from penumbra.deployments.control.last_seen import LastSeen
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.changes import Change
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.flag_edits import set_killed
from penumbra.deployments.history.recovered import Known
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.server import ControlPlane, open_plane
from penumbra.router.link.messages import EpochApplied, Hello, encode
from penumbra.router.link.table_identity import Restriction
from tests.support.control_plane import FakeGateway, payload, split_change, turns
from tests.support.rollouts import NOW, rollout_spec

INT8 = ("demo", "int8")


@asynccontextmanager
async def plane_on(folder: Path) -> AsyncIterator[ControlPlane]:
    """A leading control process."""
    given = {"demo": {"baseline": "full", "variants": {"full": {"url": "http://full.test"}}}}
    control = ControlSpec(lease_seconds=5.0)
    spec = PenumbraSpec.model_validate({"state_dir": folder, "models": given, "control": control})
    plane = open_plane(spec)

    async def begin() -> None:
        await plane.recovery.begin()
        await plane.controller.configure(payload(), CONFIGURATION)
        await plane.rollouts.start()

    plane.leadership.begin = begin
    try:
        assert await plane.leadership.stand()
        yield plane
    finally:
        await plane.interval_cache.close()
        await plane.rollouts.close()
        await plane.leadership.resign()
        plane.controller.close()


def lose(folder: Path, epoch: int) -> None:
    """Lose the events after an epoch, as a restored backup has."""
    raw = sqlite3.connect(folder / "penumbra.db")
    raw.execute("DELETE FROM events WHERE epoch > ?", (epoch,))
    raw.commit()
    raw.close()


def kill(is_killed: bool = True) -> Change:
    kind = Kind.KILL if is_killed else Kind.UNKILL
    return Change(kind, "ann", "why", {"demo": set_killed(is_killed)})


async def test_a_kill_that_the_store_lost_is_in_force_after_the_next_start(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        await plane.controller.apply(kill())
    lose(tmp_path, 2)
    async with plane_on(tmp_path) as plane:
        state, standing = plane.controller.state, plane.controller.standing
        assert state.flags["demo"].killed
        assert standing.generation == 2
        assert standing.unconfirmed(state.changed) == ["demo"]
        [event] = await plane.controller.read(lambda store: store.events(after=2))
        assert (event.kind, event.actor) == (Kind.RECOVER, RECOVERY)
        assert "epoch 3" in event.reason
    async with plane_on(tmp_path) as plane:  # once, not at each start
        state, standing = plane.controller.state, plane.controller.standing
        assert (state.epoch, standing.generation) == (3, 2)
        assert standing.unconfirmed(state.changed) == ["demo"]
        await plane.controller.apply(kill(False))
        assert standing.unconfirmed(plane.controller.state.changed) == []


async def test_a_loss_is_not_forgotten_when_it_cannot_be_dealt_with_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with plane_on(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        await plane.controller.apply(kill())
        lose(tmp_path, 2)
        plane.controller.is_behind = True

        async def fail(lost: Known) -> None:
            raise StoreUnavailable(f"read only, after epoch {lost.epoch}")

        with monkeypatch.context() as broken:
            broken.setattr(plane.controller.standing, "recover", fail)
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="after epoch 3"):
                    await plane.controller.apply(split_change(50))
        await plane.controller.apply(split_change(50))
        assert plane.controller.state.flags["demo"].killed
        assert plane.controller.standing.generation == 2


async def test_a_loss_that_takes_nothing_away_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with plane_on(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
    lose(tmp_path, 1)
    async with plane_on(tmp_path) as plane:
        assert plane.controller.standing.generation == 2
        [event] = await plane.controller.read(lambda store: store.events(after=1))
        assert (event.kind, event.actor) == (Kind.CONFIG, RECOVERY)
        assert plane.controller.state.flags["demo"].split == {}
    assert "store_went_back" in caplog.messages


async def test_a_rollback_that_the_store_lost_is_made_again(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane:
        state = plane.controller.state
        await plane.rollouts.put(
            lambda: operator_actions.apply(state, rollout_spec(), "try", NOW, "run"), "ann", "try"
        )
        await plane.rollouts.change(
            INT8, lambda rollout: operator_actions.rollback(rollout, "bad", NOW), "ann", "bad"
        )
    lose(tmp_path, 2)
    async with plane_on(tmp_path) as plane:
        assert plane.controller.state.rollouts[INT8].record.phase is Phase.ROLLED_BACK
        assert plane.controller.state.flags["demo"].blocked == ("int8",)


async def test_a_store_that_goes_back_under_a_running_process_forgets_no_kill(
    tmp_path: Path,
) -> None:
    async with plane_on(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        await plane.controller.apply(kill())
        lose(tmp_path, 2)
        await plane.tick.run_once()  # it finds another epoch, so it is no sign of life
        await plane.tick.run_once()
        assert plane.controller.state.flags["demo"].killed
        assert (plane.controller.state.epoch, plane.controller.standing.generation) == (3, 2)


def hello(plane: ControlPlane, epoch: int, digest: str, **restrictions: Restriction) -> Hello:
    store = plane.controller._store.identity
    return Hello("g", 7, store, epoch, digest=digest, restrictions=restrictions)


async def test_a_gateway_that_holds_what_the_store_lost_is_believed(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        seen = hello(plane, 9, "9" * 32, demo=Restriction(False, ("int8",), ("json",)))
        await plane.recovery.hear(seen)
        flag = plane.controller.state.flags["demo"]
        assert (flag.blocked, flag.quarantined) == (("int8",), ("json",))
        assert plane.controller.standing.generation == 2
        await plane.recovery.hear(seen)  # a second gateway with the same
        assert plane.controller.standing.generation == 2
        assert plane.controller.state.epoch == 3


async def test_a_quarantine_of_one_candidate_that_the_store_lost_is_made_again_for_it_alone(
    tmp_path: Path,
) -> None:
    async with plane_on(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        known = Restriction(
            quarantined=("json",), quarantined_for={"int8": ("json",)}, quarantined_for_all=()
        )
        await plane.recovery.hear(hello(plane, 9, "9" * 32, demo=known))
        flag = plane.controller.state.flags["demo"]
        assert (flag.quarantined, flag.quarantined_for) == ((), {"int8": ("json",)})


async def test_a_gateway_with_the_same_epoch_of_another_event_is_believed(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        await plane.recovery.hear(hello(plane, 2, "9" * 32, demo=Restriction(True)))
        assert plane.controller.state.flags["demo"].killed
        assert plane.controller.standing.generation == 2


async def test_a_gateway_of_before_names_is_believed_where_its_epoch_is_newer(
    tmp_path: Path,
) -> None:
    async with plane_on(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        for epoch, generation in ((1, 1), (2, 1), (3, 2)):
            await plane.recovery.hear(hello(plane, epoch, ""))
            assert plane.controller.standing.generation == generation


async def test_a_gateway_that_is_merely_behind_changes_nothing(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane:
        first = plane.controller.newest
        await plane.controller.apply(split_change(30))
        await plane.recovery.hear(hello(plane, first.epoch, first.digest, demo=Restriction(True)))
        assert not plane.controller.state.flags["demo"].killed
        other_store = Hello("g", 7, "another", 9, restrictions={"demo": Restriction(True)})
        await plane.recovery.hear(other_store)
        assert (plane.controller.state.epoch, plane.controller.standing.generation) == (2, 1)


async def test_an_acknowledgement_of_another_table_under_the_epoch_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with plane_on(tmp_path) as plane:
        gateway = FakeGateway("g", answers=False)
        attending = asyncio.create_task(plane.gateways.attend(gateway))
        await gateway.reach(1)
        change = asyncio.create_task(plane.controller.apply(kill()))
        await gateway.reach(2)
        gateway.say(encode(EpochApplied(2, 1, "9" * 32)))
        await turns()
        [link] = plane.gateways.links
        assert link.epoch == 0
        assert "table_unknown" in caplog.messages
        gateway.say(encode(EpochApplied(2, 1, plane.controller.newest.digest)))
        outcome = await change
        assert (outcome.arrival.connected, outcome.arrival.acknowledged) == (1, 1)
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)


def test_what_was_seen_is_written_into_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    seen = Known(2, 5, "aa", {"demo": Restriction(True, ("int8",))})
    file = tmp_path / "state" / "last-seen.json"
    LastSeen(file, "store").write(seen)
    assert LastSeen(file, "store").read() == seen
    assert LastSeen(file, "another").read() is None
    assert LastSeen(tmp_path / "none", "store").read() is None
    file.write_text("half a fi")
    assert LastSeen(file, "store").read() is None


async def test_revocation_that_the_store_lost_is_made_again(tmp_path: Path) -> None:
    async with plane_on(tmp_path) as plane:
        service = AccessService(plane.controller, lambda: NOW)
        await service.add("alice", "operator", None, "ann", "test")
        await service.add("bob", "viewer", None, "ann", "test")
        held = plane.controller.state.epoch
        await service.revoke("alice", "ann", "left")
        await turns()
    lose(tmp_path, held)
    async with plane_on(tmp_path) as plane:
        assert [*plane.controller.state.identities.by_name] == ["bob"]
        [event] = await plane.controller.read(lambda store: store.latest(1))
        assert (event.kind, event.actor) == (Kind.ACCESS, RECOVERY)
