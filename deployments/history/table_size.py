"""The greatest size that a routing table can come to without a further decision by a person. Pure.

A table that fits through no gateway's link would take the kill switch with it. So the room that
kills, blocks, quarantines, and the stages of rollouts under way may need is counted as taken from
the beginning: whatever they change then, the size counted here stays as it is, and none of them is
ever refused for it.

Reading order: greatest_bytes, size_problem.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.router.flags.modality import MODALITIES
from penumbra.router.flags.released_channels import channel_of
from penumbra.router.flags.request_routes import OTHER_ROUTE, ROUTE_NAMES
from penumbra.router.flags.routing_table import ModelSnapshot, Watch
from penumbra.router.flags.slices import OTHER
from penumbra.router.link.older_gateways import OwnRestrictions, OwnWatch

_LONGEST_EPOCH: Final = 2**63 - 1
_LONGEST_NUMBER: Final = 1.2345678901234567e-300
"""A number whose text is as long as that of any share."""
_LONGEST_NAME: Final = "x" * 64
_SPLIT_BYTES: Final = 128
"""A candidate's entry in the split: its name, its share."""
_LARGEST_SHOWN: Final = 3
_CHANNELS: Final = tuple(
    channel_of(route, modality) for route in (*ROUTE_NAMES, OTHER_ROUTE) for modality in MODALITIES
)


def greatest_bytes(state: State) -> int:
    """Bytes of the routing table as JSON, with all that the guard and its rollouts may yet add."""
    models = {name: _restricted(state, name, model) for name, model in state.models.items()}
    # A copy: whatever else a table holds counts as it is.
    table = state.snapshot().model_copy(update={"epoch": _LONGEST_EPOCH, "models": models})
    size = len(table.model_dump_json(exclude_defaults=True).encode())
    size += sum(_own_bytes(name, *_closed(state.models[name])) for name in models)
    return size + sum(_rollout_bytes(state.models, rollout) for rollout in _open(state))


def size_problem(before: State, after: State, most_bytes: int) -> str | None:
    """Say why a change may not be made for the size of the table; None: it may.

    A change that makes a table no larger is always allowed, also where the table is too large
    already, as a store of an older release may have it.

    Args:
        before: State before the change.
        after: State after it.
        most_bytes: Largest table that fits through a link.
    """
    size = greatest_bytes(after)
    if size <= most_bytes or size <= greatest_bytes(before):
        return None
    return (
        f"found a routing table of {size} bytes with this change (and with the room for kills,"
        f" quarantines and running rollouts), wanted at most {most_bytes}: a larger one fits"
        f" through no gateway's link. Largest: {_largest(after.models)}"
    )


def _restricted(state: State, name: str, model: ModelSnapshot) -> ModelSnapshot:
    """The model with everything taken away, and without what `_rollout_bytes` counts."""
    flag = model.flag
    blocked, slices = _closed(model)
    moving = {rollout.spec.candidate for rollout in _open(state) if rollout.spec.model == name}
    update = {
        "killed": True,
        "blocked": blocked,
        "quarantined": slices,
        "quarantined_for": {},
        "split": {key: share for key, share in flag.split.items() if key not in moving},
    }
    return model.model_copy(update={"flag": flag.model_copy(update=update), "watches": ()})


def _closed(model: ModelSnapshot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All candidates, and all slices, of the model and of what its flag says."""
    flag = model.flag
    names = (variant for variant in model.variants if variant != model.baseline)
    candidates = dict.fromkeys((*names, *flag.blocked, *flag.quarantined_for))
    slices = dict.fromkeys(
        (*(rule.name for rule in model.slices), OTHER, *flag.quarantined_for_any)
    )
    return tuple(candidates), tuple(slices)


@lru_cache(maxsize=2048)
def _own_bytes(name: str, candidates: tuple[str, ...], slices: tuple[str, ...]) -> int:
    """Bytes of what is told beside the table (`OwnRestrictions`), without scopes."""
    own = OwnRestrictions(
        blocked=candidates,
        quarantined=slices,
        quarantined_for=dict.fromkeys(candidates, slices),
    )
    return len(json.dumps({name: own.model_dump(mode="json")}))


def _open(state: State) -> Iterable[Rollout]:
    """Rollouts that may change the table without an operator."""
    return (each for each in state.rollouts.values() if each.record.phase is not Phase.OFF)


def _rollout_bytes(models: Mapping[str, ModelSnapshot], rollout: Rollout) -> int:
    model = models.get(rollout.spec.model)
    if model is None or rollout.spec.candidate not in model.variants:
        return 0
    size = _watch_bytes((*(rule.name for rule in model.slices), OTHER)) + _SPLIT_BYTES
    return size + _scope_bytes(rollout)


def _scope_bytes(rollout: Rollout) -> int:
    """Bytes of the scope, and of what is told beside the table with it (`OwnWatch`)."""
    scope, rates = rollout.spec.scope, rollout.spec.mirror
    if scope is None:
        return 0
    own_rates = dict.fromkeys((*rates.slices, *rollout.record.slices), _LONGEST_NUMBER)
    own = OwnWatch(scope=scope, mirror=_LONGEST_NUMBER, mirror_slices=own_rates)
    return len(json.dumps(own.model_dump(mode="json"))) + _SPLIT_BYTES


@lru_cache(maxsize=128)
def _watch_bytes(slices: tuple[str, ...]) -> int:
    """Bytes of the largest watch of a model with these slices."""
    shares = dict.fromkeys(slices, _LONGEST_NUMBER)
    watch = Watch.model_construct(
        candidate=_LONGEST_NAME,
        run=_LONGEST_NAME,
        mirror=_LONGEST_NUMBER,
        mirror_slices=shares,
        generate=_LONGEST_NUMBER,
        aa=_LONGEST_NUMBER,
        aa_slices=shares,
        cluster="prompt",
        failure_tolerance=_LONGEST_NUMBER,
        failure_alpha=_LONGEST_NUMBER,
        failure_requests=_LONGEST_EPOCH,
        latency_factor=_LONGEST_NUMBER,
        released=dict.fromkeys(slices, _CHANNELS),
        in_flight="continue",
    )
    return len(watch.model_dump_json().encode())


def _largest(models: Mapping[str, ModelSnapshot]) -> str:
    sizes = {
        name: len(model.model_dump_json(exclude_defaults=True).encode())
        for name, model in models.items()
    }
    shown = sorted(sizes.items(), key=lambda item: -item[1])[:_LARGEST_SHOWN]
    return ", ".join(f"{name} ({size} bytes)" for name, size in shown)
