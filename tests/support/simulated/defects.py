"""Defects that the simulated fault schedules must find, each with a seed that does."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from penumbra.deployments.control import store_recovery
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.leadership import Leadership
from penumbra.deployments.gateways.delivery import Delivery
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.history import config_effects
from penumbra.deployments.history.changes import Arrival
from penumbra.deployments.rollouts.flag_effects import flag_after
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.router.flags.routing_table import Flag


@dataclass(frozen=True)
class Defect:
    """A promise that the code does not keep any more."""

    plant: Callable[[], AbstractContextManager[Any]]
    seed: int
    found_by: str
    """Pattern of what the simulation says."""


async def _answer_at_once(self: Controller, epoch: int, delivery: Delivery | None) -> Arrival:
    if delivery is not None:
        return await delivery.wait(self._acknowledge_seconds)
    links = self._publisher.links
    return Arrival(len(links), sum(link.epoch >= epoch for link in links), None)


def _take_all_shares(flag: Flag, before: Rollout | None, after: Rollout) -> Flag:
    found = flag_after(flag, before, after)
    is_back = after.record.phase is Phase.ROLLED_BACK
    return found.model_copy(update={"split": {}}) if is_back else found


DEFECTS = {
    "a rollback takes the share of another candidate": Defect(
        lambda: mock.patch.object(config_effects, "flag_after", _take_all_shares),
        1,
        "the rollout of awq changes int8",
    ),
    "a change is answered while leases of the leader before last": Defect(
        lambda: mock.patch.object(Controller, "_arrive", _answer_at_once),
        15,
        "was acknowledged",
    ),
    "no lease is inherited": Defect(
        lambda: mock.patch.object(Leadership, "_inherited_seconds", return_value=0.0),
        93,
        "was acknowledged",
    ),
    "what a store forgot is not taken away again": Defect(
        lambda: mock.patch.object(store_recovery, "draft_recovery", return_value=[]),
        180,
        "was acknowledged",
    ),
    "a comparator's sign of life counts for ever": Defect(
        lambda: mock.patch.object(
            GuardLiveness, "_left", lambda self, alive_at, now: self.lease_seconds
        ),
        46,
        "no comparator has run",
    ),
}
