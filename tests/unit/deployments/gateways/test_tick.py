import logging

import pytest

from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.tick import ControlTick
from penumbra.router.flags.routing_table import Snapshot
from tests.support.routing_tables import model

TABLE = Snapshot(epoch=1, models={"demo": model()})


class Patient:
    """A heart, a clock, and what may go wrong."""

    def __init__(self) -> None:
        self.now = 100.0
        self.store_error: Exception | None = None
        self.tick_error: Exception | None = None
        self.done: list[str] = []
        self.liveness = GuardLiveness(10.0)
        self.heart = ControlTick(self.liveness, self._prove, lambda: self.now)
        self.heart.on_tick = self._tick

    async def _prove(self) -> None:
        if self.store_error is not None:
            raise self.store_error
        self.done.append("store")

    async def _tick(self) -> None:
        if self.tick_error is not None:
            raise self.tick_error
        self.done.append("tick")
        self.now += 3.0  # it takes its time

    def lease(self) -> float:
        return self.liveness.grant(TABLE, "", self.now)["demo"]


async def test_a_beat_is_a_tick_and_a_durable_write_and_counts_from_its_beginning() -> None:
    patient = Patient()
    await patient.heart.beat()
    assert patient.done == ["tick", "store"]
    assert patient.lease() == 7.0


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), RuntimeError("a bug")])
@pytest.mark.parametrize("where", ["store_error", "tick_error"])
async def test_what_cannot_decide_or_cannot_write_guards_nobody(
    where: str, error: Exception
) -> None:
    patient = Patient()
    setattr(patient, where, error)
    await patient.heart.beat()
    assert patient.lease() == 0.0
    setattr(patient, where, None)
    await patient.heart.beat()
    assert patient.lease() > 0


async def test_a_store_that_stays_away_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    patient = Patient()
    patient.store_error = StoreUnavailable("the disk is full")
    for _ in range(5):
        await patient.heart.beat()
    assert [record.message for record in caplog.records] == ["guard_not_alive"]
    patient.store_error = None
    await patient.heart.beat()
    patient.store_error = StoreUnavailable("again")
    await patient.heart.beat()
    assert len(caplog.records) == 2
