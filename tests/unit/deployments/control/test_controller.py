"""The controller: durable changes, their delivery to gateways, and failures of the store."""

import asyncio
import time
from pathlib import Path

import pytest

from penumbra.deployments.control.controller import Change
from penumbra.deployments.errors import (
    Conflict,
    FlagRefused,
    NotFound,
    NotLeader,
    StoreInDoubt,
    StoreUnavailable,
)
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.flag_edits import (
    add_pin,
    import_over,
    remove_pin,
    replace_with,
    set_killed,
)
from penumbra.deployments.history.state import fold
from penumbra.router.flags.routing_table import Flag, Pin, Variant
from penumbra.router.link.messages import EpochApplied, LinkError, encode
from tests.support.control_plane import (
    FakeGateway,
    HangingGateway,
    Plane,
    control_plane,
    lead,
    payload,
    split_change,
    turns,
)
from tests.support.routing_tables import model


async def test_a_change_is_durable_and_live_when_it_is_answered(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        gateways = [await plane.connect(FakeGateway(f"g{number}")) for number in range(3)]
        applied = await plane.controller.apply(split_change(30))
        assert applied.epoch == 2
        assert plane.store.events()[-1].epoch == 2
        assert (applied.arrival.connected, applied.arrival.acknowledged) == (3, 3)
        assert applied.arrival.seconds is not None
        for gateway in gateways:
            assert gateway.tables[-1] == plane.controller.state.snapshot()
            assert gateway.tables[-1].models["demo"].flag.split == {"int8": 30}


async def test_a_hanging_gateway_delays_neither_the_others_nor_later_changes(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path, acknowledge_seconds=0.25) as plane:
        await plane.connect(HangingGateway("hangs"))
        well = await plane.connect(FakeGateway("well"))
        for number in range(1, 4):
            applied = await plane.controller.apply(split_change(number))
            assert (applied.arrival.connected, applied.arrival.acknowledged) == (2, 1)
            assert applied.arrival.seconds is None
            assert well.tables[-1].epoch == applied.epoch


async def test_a_silent_gateway_counts_as_not_reached(tmp_path: Path) -> None:
    async with control_plane(tmp_path, acknowledge_seconds=0.02) as plane:
        await plane.connect(FakeGateway("silent", answers=False))
        assert (await plane.controller.apply(split_change(1))).arrival.acknowledged == 0


async def test_a_gateway_that_refuses_or_leaves_is_not_waited_for(tmp_path: Path) -> None:
    async with control_plane(tmp_path, acknowledge_seconds=60) as plane:
        await plane.connect(FakeGateway("refuses", refuses=True))
        leaving = await plane.connect(FakeGateway("leaves", answers=False))
        change = asyncio.create_task(plane.controller.apply(split_change(1)))
        await leaving.reach(2)
        leaving.leave()
        applied = await change
        assert (applied.arrival.connected, applied.arrival.acknowledged) == (2, 0)
        assert [link.refusal for link in plane.publisher.links] == ["no room"]


async def test_a_change_is_answered_once_no_gateway_that_is_cut_off_has_a_lease(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path, acknowledge_seconds=60) as plane:
        here = await plane.connect(FakeGateway("here"))
        began = time.monotonic()
        plane.controller.standing.cut_off_until = lambda now: now + 0.2
        change = asyncio.create_task(plane.controller.apply(split_change(1)))
        await here.reach(2)
        assert not change.done()  # in force where it can be, and not everywhere
        applied = await change
        assert time.monotonic() - began >= 0.2
        assert (applied.arrival.connected, applied.arrival.acknowledged) == (1, 1)


async def test_a_change_that_the_store_may_have_lost_meanwhile_is_not_acknowledged(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path, acknowledge_seconds=60) as plane:
        here = await plane.connect(FakeGateway("here"))
        plane.controller.standing.cut_off_until = lambda now: now + 0.2
        change = asyncio.create_task(plane.controller.apply(split_change(1)))
        await here.reach(2)
        plane.controller.standing.generation += 1
        with pytest.raises(StoreInDoubt, match="lost events before"):
            await change


async def test_a_gateway_that_is_back_before_its_end_was_noticed_counts_once(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path, acknowledge_seconds=60) as plane:
        lost = await plane.connect(FakeGateway("g", answers=False))
        await plane.connect(FakeGateway("g"))
        applied = await plane.controller.apply(split_change(1))
        assert (applied.arrival.connected, applied.arrival.acknowledged) == (1, 1)
        lost.leave()
        await asyncio.gather(plane.attending[0])
        assert len(plane.publisher.links) == 1


async def test_a_gateway_that_connects_gets_the_newest_table(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        await plane.controller.apply(split_change(1))
        await plane.controller.apply(split_change(2))
        late = await plane.connect(FakeGateway("late"))
        assert [table.epoch for table in late.tables] == [3]


@pytest.mark.parametrize("text", ["{}", "not JSON", encode(EpochApplied(1))])
async def test_a_link_that_does_not_begin_with_a_hello_is_cut(tmp_path: Path, text: str) -> None:
    async with control_plane(tmp_path) as plane:
        gateway = FakeGateway("odd")
        await gateway.receive()
        gateway.say(text)
        with pytest.raises(LinkError):
            await plane.publisher.attend(gateway)
        assert plane.publisher.links == ()


async def test_what_changes_nothing_is_not_stored(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        again = await plane.controller.apply(split_change(30))
        assert (again.epoch, again.is_changed) == (2, False)
        assert len(plane.store.events()) == 2


async def test_an_invalid_flag_changes_nothing(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        with pytest.raises(FlagRefused, match=r"split\.int8: found 101"):
            await plane.controller.apply(split_change(101))
        assert plane.controller.state.epoch == len(plane.store.events()) == 1


async def test_an_unknown_model_is_named(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        with pytest.raises(NotFound, match="wanted one of: demo"):
            await plane.controller.apply(split_change(1, name="nosuch"))


async def test_a_change_on_an_outdated_flag_is_a_conflict(tmp_path: Path) -> None:
    config = payload(demo=model(), chat=model())
    async with control_plane(tmp_path, config=config) as plane:
        await plane.controller.apply(split_change(1))
        with pytest.raises(Conflict, match="changed in epoch 2, after epoch 1"):
            await plane.controller.apply(split_change(2, expected_epoch=1))
        # Another model's flag is as it was read.
        assert (await plane.controller.apply(split_change(2, name="chat", expected_epoch=1))).epoch


async def test_several_flags_change_together_or_not_at_all(tmp_path: Path) -> None:
    config = payload(demo=model(), chat=model())
    async with control_plane(tmp_path, config=config) as plane:
        bad = {
            "demo": replace_with(Flag(killed=True)),
            "chat": replace_with(Flag(split={"nosuch": 1})),
        }
        with pytest.raises(FlagRefused):
            await plane.controller.apply(Change(Kind.IMPORT, "ann", "test", bad))
        assert plane.controller.state.epoch == 1
        good = {name: set_killed(True) for name in ("demo", "chat")}
        assert (await plane.controller.apply(Change(Kind.KILL, "ann", "test", good))).epoch == 3


async def test_a_failed_write_changes_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        gateway = await plane.connect(FakeGateway("g"))
        plane.store.failures = [StoreUnavailable("disk full")]
        with pytest.raises(StoreUnavailable):
            await plane.controller.apply(split_change(30))
        assert plane.controller.has_lost_track
        assert plane.controller.state.models["demo"].flag.split == {}
        assert len(gateway.tables) == 1
        assert (await plane.controller.apply(split_change(40))).epoch == 2
        assert not plane.controller.is_behind


async def test_a_healthy_commit_loses_no_track(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        change = asyncio.create_task(plane.controller.apply(split_change(30)))
        seen = set()
        while not change.done():
            seen.add((plane.controller.is_behind, plane.controller.has_lost_track))
            await asyncio.sleep(0)
        assert seen == {(True, False), (False, False)}


async def test_a_commit_whose_answer_was_lost_is_found_again(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        gateway = await plane.connect(FakeGateway("g"))
        plane.store.failures = [StoreUnavailable("connection lost")]
        plane.store.loses_answers = True
        with pytest.raises(StoreUnavailable):
            await plane.controller.apply(split_change(30))
        applied = await plane.controller.apply(split_change(30))
        assert (applied.epoch, applied.is_changed) == (2, False)
        await gateway.reach(2)


async def test_another_writer_is_a_conflict_then_its_events_are_taken_over(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path) as one, control_plane(tmp_path) as two:
        with pytest.raises(NotLeader):
            await one.controller.apply(split_change(20))
        lead(one.store)
        await one.controller.apply(split_change(30))
        lead(two.store)
        with pytest.raises(Conflict):
            await two.controller.apply(split_change(40))
        assert (await two.controller.apply(split_change(40))).epoch == 3
        assert fold(two.store.events()) == two.controller.state


async def test_a_cancelled_change_leaves_the_state_and_the_store_in_agreement(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path) as plane:
        for number in range(20):
            change = asyncio.create_task(plane.controller.apply(split_change(number + 1)))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
        await plane.controller.apply(split_change(99))
        assert fold(plane.store.events()) == plane.controller.state


async def test_concurrent_changes_are_made_one_after_another(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        changes = (plane.controller.apply(split_change(share)) for share in range(1, 30))
        epochs = [applied.epoch for applied in await asyncio.gather(*changes)]
        assert epochs == list(range(2, 31))
        assert fold(plane.store.events()) == plane.controller.state


async def test_the_same_configuration_again_is_no_event(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        assert not await plane.controller.configure(payload(), "configuration")
        moved = model().model_copy(update={"variants": {"full": Variant(url="http://moved")}})
        assert await plane.controller.configure(payload(demo=moved), "configuration")
        assert plane.controller.state.epoch == 2


async def test_the_order_of_variants_is_configuration(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        reordered = model(variants=("full", "int4", "int8", "int3"))
        assert await plane.controller.configure(payload(demo=reordered), "configuration")


async def test_a_restart_comes_back_with_every_change(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        before = plane.controller.state
    async with control_plane(tmp_path) as plane:
        assert plane.controller.state == before


async def test_reset_stores_a_flag_between_two_configurations(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        await plane.controller.apply(split_change(30))
        assert await plane.controller.reset("demo", Flag(killed=True), "ann", "moved on") == 3
        assert plane.controller.state.flags["demo"] == Flag(killed=True)
        with pytest.raises(NotFound):
            await plane.controller.reset("nosuch", Flag(), "ann", "why")


def test_pins_are_added_replaced_and_removed() -> None:
    one = Pin(kind="key", subject="alice", variant="int8")
    two = Pin(kind="key", subject="alice", variant="int4")
    tenant = Pin(kind="tenant", subject="alice", variant="int4")
    flag = add_pin(two)(add_pin(tenant)(add_pin(one)(Flag(), model()), model()), model())
    assert flag.pins == (tenant, two)
    assert remove_pin("key", "alice")(flag, model()).pins == (tenant,)
    with pytest.raises(NotFound):
        remove_pin("key", "bob")(flag, model())


def test_an_import_does_not_take_back_what_the_guard_blocked() -> None:
    flag = import_over(Flag(split={"int8": 1}))(Flag(blocked=("int4",)), model())
    assert flag == Flag(split={"int8": 1}, blocked=("int4",))


async def test_an_acknowledgement_that_comes_late_is_missed_once_and_measured_all_the_same(
    tmp_path: Path,
) -> None:
    async with control_plane(tmp_path, acknowledge_seconds=0.02) as plane:
        gateway = await plane.connect(FakeGateway("g0"))
        gateway._answers = False
        applied = await plane.controller.apply(split_change(1))
        assert applied.arrival.acknowledged == 0
        assert await _count_changes(plane) == (1.0, 0.0)
        gateway.say(encode(EpochApplied(applied.epoch)))
        await turns()
        assert await _count_changes(plane) == (1.0, 1.0)


async def test_an_epoch_without_a_waiting_change_is_measured_too(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        gateway = await plane.connect(FakeGateway("g0"))
        await plane.controller.reset("demo", Flag(killed=True), "ann", "stop")
        await gateway.reach(2)
        await turns()
        assert await _count_changes(plane) == (0.0, 1.0)


async def test_changes_are_counted_once_whatever_happened_to_the_commit(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as plane:
        plane.store.loses_answers = True
        plane.store.failures = [StoreUnavailable("connection lost")]
        with pytest.raises(StoreUnavailable):
            await plane.controller.apply(split_change(1))
        plane.store.loses_answers = False
        await plane.controller.apply(split_change(2))
        assert plane.controller.metrics.history_counters.kinds == {"config": 1, "split": 2}
    async with control_plane(tmp_path) as plane:
        assert plane.controller.metrics.history_counters.kinds == {"config": 1, "split": 2}


async def _count_changes(plane: Plane) -> tuple[float, float]:
    """Changes that a gateway did not acknowledge in time, and those that all acknowledged."""
    text, _ = await plane.controller.metrics.scrape(None)
    values = dict(line.rsplit(" ", 1) for line in text.decode().splitlines())
    return (
        float(values["penumbra_control_incomplete_changes_total"]),
        float(values["penumbra_control_propagation_seconds_count"]),
    )


async def test_the_newest_table_is_sent_again_under_the_generation_that_another_leader_began(
    tmp_path: Path,
) -> None:
    # A leader that is followed publishes what the next one stored before it learns of its end.
    async with control_plane(tmp_path) as plane:
        gateway = await plane.connect(FakeGateway("one"))
        sent, epoch = len(gateway.tables), plane.controller.state.epoch
        plane.controller.standing.generation = 2
        await plane.controller.follow()
        await turns()
        assert plane.publisher.generation == 2
        assert [table.epoch for table in gateway.tables[sent:]] == [epoch]
        await plane.controller.follow()
        await turns()
        assert len(gateway.tables) == sent + 1
