"""Rollouts on a control plane in the test's process, with a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from penumbra.deployments.control.controller import Clocks
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.history import operator_actions
from penumbra.deployments.rollouts.record import Rollout
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.router.flags.routing_table import Flag
from tests.support.control_plane import Plane, control_plane
from tests.support.rollouts import NOW, rollout_spec

KEY = ("demo", "int8")


@dataclass
class RunningRollouts:
    """A control plane with rollouts, and a clock that the test moves."""

    plane: Plane
    rollouts: RolloutService = field(init=False)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.rollouts = self.fresh()

    async def apply(self, spec: RolloutSpec | None = None) -> Rollout:
        state = self.plane.controller
        result = await self.rollouts.put(
            lambda: operator_actions.apply(
                state.state, spec or rollout_spec(), "try", self.now, "run"
            ),
            "ann",
            "try",
        )
        return result.rollout

    async def after(self, seconds: float) -> Rollout:
        self.now += timedelta(seconds=seconds)
        await self.rollouts.decide_pending()
        await self.rollouts.keep_house()
        return self.rollout

    @property
    def rollout(self) -> Rollout:
        return self.rollouts.rollout(KEY)

    @property
    def flag(self) -> Flag:
        return self.plane.controller.state.models["demo"].flag

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now, asyncio.get_running_loop().time)

    def fresh(self) -> RolloutService:
        """Make a service as after a restart of the process: it has only the store."""
        return RolloutService(self.plane.controller, self.clocks, 1.0, "process-1")


@asynccontextmanager
async def running_rollouts(folder: Path) -> AsyncIterator[RunningRollouts]:
    async with control_plane(folder) as plane:
        plane.controller.checkpoint_key = b"a key of the tests"
        made = RunningRollouts(plane)
        await made.rollouts.start()
        yield made
        await made.rollouts.close()
