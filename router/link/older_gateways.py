"""Tables for gateways of before candidates had quarantines and scopes of their own. Pure.

A gateway refuses a table with a field that it does not know, and with it the kill switch. So what
such a gateway does not know is not in the table: it gets a *stricter* one. Every slice that is
closed to a candidate is closed to all; a candidate whose scope is a part of the requests is blocked
while it has a share, and nothing is mirrored for it. What loosens the table again is told beside it
(`penumbra.router.link.messages.Push.own`), where an older gateway ignores it.

A share is not taken out of the split for that: where shares of three candidates meet, other users
would then be given to the third.

Reading order: stricter, loosened.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from penumbra.router.flags.routing_table import ModelSnapshot, Scope, Snapshot, Watch

_LOOSE = ConfigDict(extra="ignore", frozen=True)


class OwnWatch(BaseModel):
    """The part of a watch that is of requests in a scope."""

    model_config = _LOOSE

    scope: Scope
    mirror: float = 0.0
    mirror_slices: dict[str, float] = {}


class OwnRestrictions(BaseModel):
    """The part of one model's table that is of single candidates."""

    model_config = _LOOSE

    blocked: tuple[str, ...] = ()
    """`Flag.blocked`."""
    quarantined: tuple[str, ...] = ()
    """`Flag.quarantined`."""
    quarantined_for: dict[str, tuple[str, ...]] = {}
    """`Flag.quarantined_for`."""
    watches: dict[str, OwnWatch] = {}
    """Candidate -> the part of its watch, if it has a scope."""


def stricter(table: Snapshot) -> tuple[Snapshot, dict[str, dict[str, Any]]]:
    """Split a table into one that an older gateway takes, and what it does not know.

    Returns:
        The table, and model -> `OwnRestrictions` as JSON; models without any are left out.
    """
    models, told = dict(table.models), {}
    for name, model in table.models.items():
        own = _own_of(model)
        if own is not None:
            models[name] = _strict(model)
            told[name] = own.model_dump(mode="json", exclude_defaults=True)
    return (table.model_copy(update={"models": models}) if told else table), told


def loosened(table: Snapshot, told: Mapping[str, Any]) -> Snapshot:
    """Put together again what `stricter` split.

    Raises:
        ValueError: What was told is not `OwnRestrictions` (pydantic's `ValidationError`).
    """
    models = dict(table.models)
    for name, found in told.items():
        if name in models:
            models[name] = _loose(models[name], OwnRestrictions.model_validate(found))
    return table.model_copy(update={"models": models})


def _own_of(model: ModelSnapshot) -> OwnRestrictions | None:
    flag = model.flag
    watches = {
        watch.candidate: OwnWatch(
            scope=watch.scope, mirror=watch.mirror, mirror_slices=watch.mirror_slices
        )
        for watch in model.watches
        if watch.scope is not None
    }
    if not flag.quarantined_for and not watches:
        return None
    return OwnRestrictions(
        blocked=flag.blocked,
        quarantined=flag.quarantined,
        quarantined_for=flag.quarantined_for,
        watches=watches,
    )


def _strict(model: ModelSnapshot) -> ModelSnapshot:
    flag = model.flag
    scoped = [
        watch.candidate
        for watch in model.watches
        if watch.scope is not None and flag.split.get(watch.candidate, 0.0) > 0
    ]
    update = {
        "blocked": tuple(dict.fromkeys((*flag.blocked, *scoped))),
        "quarantined": flag.quarantined_for_any,
        "quarantined_for": {},
    }
    watches = tuple(_unmirrored(watch) for watch in model.watches)
    flag = flag.model_copy(update=update)
    return model.model_copy(update={"flag": flag, "watches": watches})


def _unmirrored(watch: Watch) -> Watch:
    if watch.scope is None:
        return watch
    return watch.model_copy(update={"scope": None, "mirror": 0.0, "mirror_slices": {}})


def _loose(model: ModelSnapshot, own: OwnRestrictions) -> ModelSnapshot:
    update = {
        "blocked": own.blocked,
        "quarantined": own.quarantined,
        "quarantined_for": own.quarantined_for,
    }
    watches = tuple(_mirrored(watch, own.watches.get(watch.candidate)) for watch in model.watches)
    flag = model.flag.model_copy(update=update)
    return model.model_copy(update={"flag": flag, "watches": watches})


def _mirrored(watch: Watch, own: OwnWatch | None) -> Watch:
    return watch if own is None else watch.model_copy(update=dict(own))
