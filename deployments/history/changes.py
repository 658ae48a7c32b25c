"""A change that somebody wants made to flags, and what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from penumbra.deployments.history.events import Kind
from penumbra.router.flags.routing_table import Flag, ModelSnapshot

Edit = Callable[[Flag, ModelSnapshot], Flag]
"""A flag as it is, its model -> the flag as it shall be."""


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody wants done."""

    kind: Kind
    actor: str
    reason: str
    edits: Mapping[str, Edit]
    """Model -> edit; all are made, or none."""
    expected_epoch: int | None = None
    """Refuse if one of the models was changed after this epoch."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How far an epoch got within the time given."""

    connected: int
    """Gateways that it was sent to."""
    acknowledged: int
    """Those that have put it into force."""
    seconds: float | None
    """From the durable commit to the last acknowledgement; None unless there is one from all."""


@dataclass(frozen=True, slots=True)
class ChangeOutcome:
    """What came of a change."""

    epoch: int
    is_changed: bool
    """False if everything was already as wanted; then nothing was stored."""
    arrival: Arrival
    durable_seconds: float
    """From the beginning of the change to its commit."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time, as the controller is told it."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
