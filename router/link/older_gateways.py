"""Tables for gateways of before candidates had quarantines and scopes of their own. Pure.

A gateway refuses a table with a field that it does not know, and with it the kill switch. So what
such a gateway does not know is not in the table: it gets a *stricter* one, in which every slice
that is closed to a candidate is closed to all. What loosens it again is told beside the table
(`penumbra.router.link.messages.Push.own`), where an older gateway ignores it.

Reading order: stricter, loosened.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot


class OwnRestrictions(BaseModel):
    """The part of one model's table that is of single candidates."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    quarantined: tuple[str, ...] = ()
    """`Flag.quarantined`."""
    quarantined_for: dict[str, tuple[str, ...]] = {}
    """`Flag.quarantined_for`."""


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
    if not flag.quarantined_for:
        return None
    return OwnRestrictions(quarantined=flag.quarantined, quarantined_for=flag.quarantined_for)


def _strict(model: ModelSnapshot) -> ModelSnapshot:
    update = {"quarantined": model.flag.quarantined_for_any, "quarantined_for": {}}
    return model.model_copy(update={"flag": model.flag.model_copy(update=update)})


def _loose(model: ModelSnapshot, own: OwnRestrictions) -> ModelSnapshot:
    update = {"quarantined": own.quarantined, "quarantined_for": own.quarantined_for}
    return model.model_copy(update={"flag": model.flag.model_copy(update=update)})
