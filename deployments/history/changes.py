"""Changes to flags as they are asked for, and their outcomes. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from penumbra.deployments.history.events import Kind
from penumbra.router.flags.routing_table import Flag, ModelSnapshot

Edit = Callable[[Flag, ModelSnapshot], Flag]
"""A flag as it is, its model -> the flag as it shall be."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is asked for."""

    kind: Kind
    actor: str
    reason: str
    edits: Mapping[str, Edit]
    """Model -> edit; all are made, or none."""
    expected_epoch: int | None = None
    """Refuse if one of the models was changed after this epoch."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Number of gateways that an epoch reached within the time given."""

    connected: int
    """Gateways that the epoch was sent to."""
    acknowledged: int
    """Gateways that have applied it."""
    seconds: float | None
    """From the durable commit to the last acknowledgement; None unless all have acknowledged."""


@dataclass(frozen=True, slots=True)
class ChangeOutcome:
    """Outcome of a change."""

    epoch: int
    is_changed: bool
    """False if the flags were as wanted already; then nothing was stored."""
    arrival: Arrival
    durable_seconds: float
    """From the beginning of the change to its commit."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The two clocks of the control process."""

    now: Callable[[], datetime]
    """Wall clock, with a timezone."""
    monotonic: Callable[[], float]
    """Seconds."""
