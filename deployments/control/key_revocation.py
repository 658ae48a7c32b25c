"""Revocation of an API key, whatever else is to be changed: for a key that has leaked."""

from collections.abc import Callable, Sequence
from datetime import datetime

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.errors import Conflict, NotFound
from penumbra.deployments.history.changes import Arrival
from penumbra.deployments.history.config_effects import apply_config
from penumbra.deployments.history.events import ConfigPayload, Draft
from penumbra.deployments.history.split_places import keep_places
from penumbra.deployments.history.state import State
from penumbra.router.flags.tenant_keys import KeySettings


async def revoke_key(
    controller: Controller,
    rollouts: RolloutService,
    name: str,
    author: tuple[str, str],
    now: Callable[[], datetime],
) -> tuple[int, Arrival]:
    """Take one key out of those in force; no file, and nothing else of them, is looked at.

    Args:
        controller: Makes the change.
        rollouts: Commits it.
        name: The key's name, `KeySettings.key_id`.
        author: Actor and reason.
        now: Wall clock.

    Returns:
        The epoch, and how many gateways have it.

    Raises:
        NotFound: No such key is in force.
        Conflict: The store has no keys, or no other one.
        NotLeader: Another process leads, and knows the gateways.
        StoreUnavailable: The store failed; nothing was changed.
    """

    async def make() -> Sequence[Draft]:
        state = controller.state
        payload = keep_places(_without(state, name), state.places)
        return apply_config(state, payload, author[0], now(), author[1])

    delivery = await rollouts.commit(make)
    epoch = controller.state.epoch
    return epoch, await controller.await_arrival(epoch, delivery)


def _without(state: State, name: str) -> ConfigPayload:
    keys = state.keys
    if keys is None:
        raise Conflict(
            "the store holds no keys, each gateway has those of its own file: apply a file with"
            " `keys` without this one"
        )
    rest: tuple[KeySettings, ...] = tuple(key for key in keys if key.key_id != name)
    if len(rest) == len(keys):
        raise NotFound.among("key", name, [key.key_id for key in keys])
    if not rest:
        raise Conflict(
            f"{name} is the only key, and without one a gateway on loopback lets every caller in:"
            " apply a file with another key first, then revoke this one"
        )
    models = {
        name: model.model_copy(update={"watches": ()}) for name, model in state.models.items()
    }
    return ConfigPayload(models=models, keys=rest)
