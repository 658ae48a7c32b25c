"""The control process's tick, and its effect on leases."""

import logging

import pytest

from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.tick import ControlTick
from penumbra.router.flags.routing_table import Snapshot
from tests.support.routing_tables import model

TABLE = Snapshot(epoch=1, models={"demo": model()})


class TickedProcess:
    """A tick with a clock, and with failures that a test chooses."""

    def __init__(self) -> None:
        self.now = 100.0
        self.store_error: Exception | None = None
        self.tick_error: Exception | None = None
        self.done: list[str] = []
        self.liveness = GuardLiveness(10.0)
        self.tick = ControlTick(self.liveness, self._decide, self._prove, lambda: self.now)

    async def _prove(self) -> None:
        if self.store_error is not None:
            raise self.store_error
        self.done.append("store")

    async def _decide(self) -> None:
        if self.tick_error is not None:
            raise self.tick_error
        self.done.append("tick")
        self.now += 3.0  # it takes its time

    def lease(self) -> float:
        return self.liveness.grant(TABLE, "", self.now)["demo"]


async def test_a_tick_decides_then_writes_durably_and_counts_from_its_beginning() -> None:
    process = TickedProcess()
    await process.tick.run_once()
    assert process.done == ["tick", "store"]
    assert process.lease() == 7.0


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), RuntimeError("a bug")])
@pytest.mark.parametrize("where", ["store_error", "tick_error"])
async def test_a_tick_that_cannot_decide_or_write_grants_no_lease(
    where: str, error: Exception
) -> None:
    process = TickedProcess()
    setattr(process, where, error)
    await process.tick.run_once()
    assert process.lease() == 0.0
    setattr(process, where, None)
    await process.tick.run_once()
    assert process.lease() > 0


async def test_a_store_that_stays_away_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    process = TickedProcess()
    process.store_error = StoreUnavailable("the disk is full")
    for _ in range(5):
        await process.tick.run_once()
    assert [record.message for record in caplog.records] == ["guard_not_alive"]
    process.store_error = None
    await process.tick.run_once()
    process.store_error = StoreUnavailable("again")
    await process.tick.run_once()
    assert len(caplog.records) == 2
