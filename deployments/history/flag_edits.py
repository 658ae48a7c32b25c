"""Edits that an operator makes to one flag, each as a function of the flag. Pure."""

from penumbra.deployments.errors import FlagRefused, NotFound
from penumbra.deployments.history.changes import Edit
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Pin
from penumbra.router.flags.validate import FlagInvalid, validate_flag

SAFETY_FIELDS = ("killed", "blocked", "quarantined", "quarantined_for", "pins")
"""Fields that keep traffic away from a build, or with one. A file of shares and rules does not mean
to undo them."""


def replace_with(flag: Flag) -> Edit:
    """Replace the whole flag; safety fields that the new one does not name stay as they are."""
    left_out = [name for name in SAFETY_FIELDS if name not in flag.model_fields_set]

    def edit(old: Flag, model: ModelSnapshot) -> Flag:
        del model
        return flag.model_copy(update={name: getattr(old, name) for name in left_out})

    return edit


def import_over(flag: Flag) -> Edit:
    """Replace the whole flag, except for what the guard took away from single candidates."""
    return lambda old, _model: flag.model_copy(
        update={"blocked": old.blocked, "quarantined_for": old.quarantined_for}
    )


def set_killed(killed: bool) -> Edit:
    """Set the kill switch."""
    return lambda flag, _model: flag.model_copy(update={"killed": killed})


def set_split(split: dict[str, float]) -> Edit:
    """Replace all shares, in percent; a candidate that is left out has none."""
    return lambda flag, _model: flag.model_copy(update={"split": split})


def add_pin(pin: Pin) -> Edit:
    """Pin a subject; an older pin of the same subject is removed."""

    def edit(flag: Flag, model: ModelSnapshot) -> Flag:
        del model
        return flag.model_copy(update={"pins": (*_others(flag, pin.kind, pin.subject), pin)})

    return edit


def remove_pin(kind: str, subject: str) -> Edit:
    """Unpin a subject; the edit raises NotFound if it is not pinned."""

    def edit(flag: Flag, model: ModelSnapshot) -> Flag:
        del model
        others = _others(flag, kind, subject)
        if len(others) == len(flag.pins):
            raise NotFound(f"found no pin of the {kind} {subject!r}", param="subject")
        return flag.model_copy(update={"pins": others})

    return edit


def validated(name: str, model: ModelSnapshot, flag: Flag) -> Flag:
    """Return a flag that makes sense for its model.

    Raises:
        FlagRefused: It makes none; names every problem.
    """
    try:
        validate_flag(model, flag)
    except FlagInvalid as error:
        raise FlagRefused(f"the flag of {name} was refused: {error}", param="flag") from error
    return flag


def _others(flag: Flag, kind: str, subject: str) -> tuple[Pin, ...]:
    return tuple(pin for pin in flag.pins if (pin.kind, pin.subject) != (kind, subject))
