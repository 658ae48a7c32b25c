"""Leading, standing by, and the leases that a stalled leader may not grant."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.fence_times import LONGEST_LEASE_SECONDS, FenceTimes
from penumbra.deployments.control.leadership import Leadership
from penumbra.deployments.errors import Conflict, NotLeader, StoreUnavailable
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.gateways.tick import ControlTick
from penumbra.deployments.history.flag_drafts import draft_change
from penumbra.deployments.store import fencing
from penumbra.deployments.store.store import Store
from tests.support.control_plane import START, payload, split_change, store_url

LEASE = 100.0
TIMES = FenceTimes(LEASE)


class Contender:
    """One control process that may lead, with a monotonic clock that a test sets."""

    def __init__(self, folder: Path, name: str) -> None:
        self.now = 0.0
        self.store = Store(store_url(folder))
        clocks = Clocks(lambda: START, lambda: self.now)
        publisher = Publisher(self.store.identity, clocks.monotonic)
        self.controller = Controller(self.store, publisher, clocks, 1.0)
        self.liveness = GuardLiveness(LEASE, TIMES.fence_seconds)
        self.leadership = Leadership(
            self.controller, self.liveness, TIMES, f"http://{name}", clocks.monotonic
        )
        self.leadership.begin = self._begin
        self.tick = ControlTick(
            self.liveness, self._decide, self.leadership.renew, clocks.monotonic
        )

    async def _begin(self) -> None:
        await self.controller.configure(payload(), "configuration")

    async def _decide(self) -> None:
        pass

    def may_grant(self) -> bool:
        return self.liveness.may_grant(self.now)


@asynccontextmanager
async def contenders(folder: Path) -> AsyncIterator[tuple[Contender, Contender]]:
    one, two = Contender(folder, "one"), Contender(folder, "two")
    try:
        yield one, two
    finally:
        one.controller.close()
        two.controller.close()


def take_over(contender: Contender) -> None:
    """Take the lease as if it had run out."""
    seen = contender.store.look(fencing.read)
    assert contender.store.acquire("another", "http://another", 50.0, seen)


@pytest.mark.parametrize("lease_seconds", [1.0, 2.0, 10.0, 300.0])
def test_a_takeover_fits_into_what_gateways_have_left(lease_seconds: float) -> None:
    times = FenceTimes(lease_seconds)
    assert times.fence_seconds + times.look_seconds < min(5.0, lease_seconds / 2)
    assert times.renew_seconds <= times.fence_seconds / 4


async def test_one_leads_and_the_other_one_names_it(tmp_path: Path) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        assert not await two.leadership.stand()
        await two.controller.follow()
        assert two.controller.state == one.controller.state
        with pytest.raises(NotLeader, match="http://one leads"):
            await two.controller.apply(split_change(30))
        await one.leadership.resign()
        assert await two.leadership.stand()
        assert (await two.controller.apply(split_change(30))).epoch == 2


async def test_a_leader_that_is_followed_stands_by_and_writes_nothing(tmp_path: Path) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        take_over(two)
        with pytest.raises(NotLeader):
            await one.controller.apply(split_change(30))
        await one.tick.run_once()
        assert not one.leadership.is_leading
        with pytest.raises(NotLeader):
            await one.controller.apply(split_change(30))
        assert len(two.store.events()) == 1


@pytest.mark.parametrize("error", [NotLeader("no"), StoreUnavailable("no"), RuntimeError("a bug")])
async def test_a_tick_that_fails_before_the_renewal_does_not_hide_the_next_leader(
    tmp_path: Path, error: Exception
) -> None:
    async with contenders(tmp_path) as (one, two):

        async def fail() -> None:
            raise error

        tick = ControlTick(one.liveness, fail, one.leadership.renew, lambda: one.now)
        assert await one.leadership.stand()
        one.now += TIMES.fence_seconds + 0.1
        await one.leadership.lead_once(tick.run_once)
        assert one.leadership.is_leading  # no other process took it
        take_over(two)
        await one.leadership.lead_once(tick.run_once)
        assert not one.leadership.is_leading


async def test_leases_are_granted_once_the_store_knows_of_them(tmp_path: Path) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        await one.tick.run_once()
        assert not one.may_grant()  # no gateway has asked: the store says that there are none
        one.liveness.is_asked = True
        await one.tick.run_once()
        assert one.may_grant()
        await one.leadership.resign()
        assert not one.may_grant()
        assert await two.leadership.stand()
        assert two.store.term is not None
        assert two.store.term.inherited_seconds > LEASE - 50


async def test_a_stalled_leader_grants_nothing_when_it_comes_back(tmp_path: Path) -> None:
    async with contenders(tmp_path) as (one, _):
        assert await one.leadership.stand()
        one.liveness.is_asked = True
        await one.tick.run_once()
        one.now += TIMES.fence_seconds - 0.01
        assert one.may_grant()
        one.now += 0.01
        assert not one.may_grant()


async def test_a_renewal_that_was_asked_for_before_the_stall_grants_nothing(
    tmp_path: Path,
) -> None:
    async with contenders(tmp_path) as (one, _):
        assert await one.leadership.stand()
        one.liveness.is_asked = True
        renew = one.leadership.renew

        async def stall() -> None:
            await renew()
            one.now += TIMES.fence_seconds

        tick = ControlTick(one.liveness, one._decide, stall, lambda: one.now)
        await tick.run_once()
        assert not one.may_grant()


@pytest.mark.parametrize("step", [50.0, 86_400.0])
@pytest.mark.parametrize("is_watched", [True, False])
async def test_a_database_whose_clock_is_set_ahead_ends_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float, *, is_watched: bool
) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        one.liveness.is_asked = True
        await one.tick.run_once()
        if is_watched:
            assert not await two.leadership.stand()
        two.now = 7.0
        monkeypatch.setitem(fencing._NOW, "sqlite", f"{fencing._NOW['sqlite']} + {step}")
        assert await two.leadership.stand()
        left = LEASE - 7.0 if is_watched else LEASE
        assert two.controller.standing.leases_until == pytest.approx(two.now + left, abs=0.2)


async def test_a_database_whose_clock_is_set_back_makes_no_lease_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        one.liveness.is_asked = True
        await one.tick.run_once()
        assert not await two.leadership.stand()
        two.now = FenceTimes.unchanged_seconds(TIMES.fence_seconds) + 0.1
        monkeypatch.setitem(fencing._NOW, "sqlite", f"{fencing._NOW['sqlite']} - 86400")
        assert await two.leadership.stand()
        assert two.controller.standing.leases_until == pytest.approx(LEASE, abs=0.2)


async def test_no_lease_of_a_leader_before_is_longer_than_any_lease_can_be(tmp_path: Path) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        await one.leadership.resign()
        # The database's clock was set back by an hour since leases were granted.
        for until in (0.0, 1.0):
            with sqlite3.connect(tmp_path / "penumbra.db") as row:
                query = "UPDATE leadership SET leases_until = renewed_at + 3600, until = ?"
                row.execute(query, (until,))
            assert await two.leadership.stand()
            assert two.controller.standing.leases_until <= two.now + LONGEST_LEASE_SECONDS + 0.2
            await two.leadership.resign()


async def test_leases_of_a_row_that_the_store_lost_are_remembered(tmp_path: Path) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        one.liveness.is_asked = True
        await one.tick.run_once()
        assert not await two.leadership.stand()
        with sqlite3.connect(tmp_path / "penumbra.db") as row:
            row.execute("UPDATE leadership SET leases_until = 0, until = renewed_at")
        assert await two.leadership.stand()
        assert two.controller.standing.leases_until >= two.now + LEASE - 0.2


async def test_a_lease_is_taken_from_a_leader_that_renews_nothing_whatever_the_clock_says(
    tmp_path: Path,
) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        assert not await two.leadership.stand()
        two.now += FenceTimes.unchanged_seconds(TIMES.fence_seconds)
        assert not await two.leadership.stand()
        two.now += 0.1
        assert await two.leadership.stand()


async def test_a_change_is_answered_when_no_gateway_can_have_a_lease_of_the_leader_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        one.liveness.is_asked = True
        await one.tick.run_once()
        await one.leadership.resign()
        assert await two.leadership.stand()
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await two.controller.apply(split_change(30))
        assert waits
        assert LEASE - 50 < waits[-1] <= LEASE + 0.1
        waits.clear()
        two.now += LEASE + 0.1
        await two.controller.apply(split_change(40))
        assert waits == []


async def test_a_renewal_beside_events_that_this_process_lacks_is_no_sign_of_life(
    tmp_path: Path,
) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()
        two.store.term = one.store.term  # as after a commit whose answer was lost
        await two.controller.follow()
        two.store.append(draft_change(two.controller.state, split_change(30)), 1, START)
        with pytest.raises(Conflict):
            await one.leadership.renew()
        await one.leadership.renew()
        assert one.controller.state.epoch == 2


async def test_a_tool_leads_alone_or_not_at_all(tmp_path: Path) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()

        async def renewing() -> None:
            while True:
                await one.leadership.renew()
                await asyncio.sleep(0.01)

        task = asyncio.create_task(renewing())
        with pytest.raises(NotLeader, match="http://one leads"):
            await two.leadership.stand_alone()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.leadership.resign()
        await two.leadership.stand_alone()
        assert two.leadership.is_leading


async def test_a_leader_that_cannot_begin_gives_the_lease_up(tmp_path: Path) -> None:
    async with contenders(tmp_path) as (one, two):

        async def fail() -> None:
            raise StoreUnavailable("no")

        one.leadership.begin = fail
        with pytest.raises(StoreUnavailable):
            await one.leadership.stand()
        assert await two.leadership.stand()


async def test_an_error_while_a_leader_stands_down_does_not_end_its_standing_by(
    tmp_path: Path,
) -> None:
    async with contenders(tmp_path) as (one, two):
        assert await one.leadership.stand()

        async def fail() -> None:
            raise RuntimeError("a link cannot be closed")

        one.leadership.end = fail
        take_over(two)
        loop = asyncio.create_task(one.leadership.run(one.tick.run_once))
        try:
            while one.leadership.is_leading:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            two.store.release()
            while not one.leadership.is_leading:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            loop.cancel()
