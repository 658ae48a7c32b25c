"""Gates of all variants, and the move of a candidate's requests when it is taken out of service.

No attempt starts at such a candidate: every attempt, of any routing table, asks its variant's
`TrafficGate`, which shuts before the table is acknowledged. Requests under way end by themselves or
move to the baseline, as the rollout's `in_flight` says.

Reading order: TrafficGates.apply, move.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Mapping

from penumbra.router.dispatch.attempt import TrafficGate
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.flags.routing_table import ModelSnapshot

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Dispatches moved in one turn of the event loop; each must read its stream again."""


class TrafficGates:
    """The gates of all variants that this process has known.

    Args:
        is_guarded: (model, candidate) -> whether it may get live traffic now.
    """

    def __init__(self, is_guarded: Callable[[str, str], bool] = lambda *_: True) -> None:
        self._is_guarded = is_guarded
        self._gates: dict[tuple[str, str], TrafficGate] = {}
        self._policies: dict[tuple[str, str], str] = {}

    def of(self, model: str, variant: str) -> TrafficGate:
        """The gate of one variant."""
        gate = self._gates.get((model, variant))
        if gate is None:
            gate = TrafficGate(functools.partial(self._is_guarded, model, variant))
            self._gates[model, variant] = gate
        return gate

    def apply(self, models: Mapping[str, ModelSnapshot]) -> set[TrafficGate]:
        """Shut and open the gates as the table in force from now on says.

        Returns:
            Gates shut by this call whose requests under way must move.
        """
        moving = set()
        for (name, variant), gate in self._gates.items():
            model = models.get(name)
            is_shut = model is None or _is_out_of_service(model, variant)
            key = (name, variant)
            policy = _policy(model, variant) or self._policies.get(key)
            if policy is not None:
                self._policies[key] = policy
            if is_shut and not gate.is_shut and policy == "continue":
                moving.add(gate)
            gate.is_shut = is_shut
            gate.closed_slices = () if model is None else model.flag.closed_to(variant)
        return moving


def _is_out_of_service(model: ModelSnapshot, variant: str) -> bool:
    if variant == model.baseline:
        return False
    return model.flag.killed or variant in model.flag.blocked or variant not in model.variants


def _policy(model: ModelSnapshot | None, variant: str) -> str | None:
    watches = () if model is None else model.watches
    return next((watch.in_flight for watch in watches if watch.candidate == variant), None)


def move(dispatches: Iterable[Dispatch], gates: set[TrafficGate]) -> None:
    """Move requests under way at these variants to the baseline, a few in each loop turn."""
    affected = [dispatch for dispatch in dispatches if dispatch.attempt.gate in gates]
    if affected:
        asyncio.get_running_loop().call_soon(_move_some, affected)


def _move_some(dispatches: list[Dispatch]) -> None:
    for dispatch in dispatches[:_AT_ONCE]:
        try:
            dispatch.leave_candidate()
        except Exception:
            log.exception("move_failed")
    if rest := dispatches[_AT_ONCE:]:
        asyncio.get_running_loop().call_soon(_move_some, rest)
