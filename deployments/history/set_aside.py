"""Events that are stored and cannot be read, and the state of the models that they belong to. Pure.

Such a row is damaged, or a newer release has written it. It is set aside with its reason, and the
rest of the history goes on. Its model is served by the baseline alone, as if it were killed; kills,
blocks and quarantines that are known stay. So does everything else, until an operator repairs the
store: it is not known what the row had changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from penumbra.router.flags.routing_table import Flag

UNREADABLE = (
    ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError,
)  # fmt: skip
"""Errors of reading or applying a row that is damaged or of a newer release."""
EVERY_MODEL = "*"
"""Key of what concerns every model: a configuration, or rows whose model is not known."""

ACCESS = "(access)"
"""Stands for the model in events of identities, and is the key of what concerns them. No model has
this name, so a release that knows no identities sets such an event aside and serves all models on.
"""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A stored event that cannot be read or applied."""

    epoch: int
    model: str | None
    """None: it concerns every model, or the row does not say."""
    kind: str
    """Kind as stored; `missing` for epochs that have no row."""
    problem: str
    is_settled: bool = False
    """Whether a repair has dealt with it: then only its epoch counts."""

    @property
    def text(self) -> str:
        """One sentence for people."""
        return f"epoch {self.epoch} of the history ({self.kind}) cannot be read: {self.problem}"


def problem_of(error: Exception) -> str:
    """Describe in one line why a row cannot be read, without the values in it."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        return f"{field}: {first['msg']}" if field else str(first["msg"])
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


Aside = Mapping[str, SetAside]
"""Model, or `EVERY_MODEL` -> the first of its events that was set aside."""


def reason_of(aside: Aside, model: str) -> SetAside | None:
    """Return the event because of which a model is served by the baseline alone; None: none is."""
    return aside.get(model) or aside.get(EVERY_MODEL)


def in_force(aside: Aside, model: str, flag: Flag) -> Flag:
    """Return the flag that is in force while events are set aside."""
    return flag if reason_of(aside, model) is None else flag.model_copy(update={"killed": True})
