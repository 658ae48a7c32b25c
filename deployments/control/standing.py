"""Standing of one control process: whether it leads, and what it knows of the store's losses."""

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from penumbra.deployments.errors import NotLeader
from penumbra.deployments.history.recovered import Known

log = logging.getLogger(__name__)


async def _take_note(lost: Known) -> None:
    log.error("store_lost_events", extra={"epoch": lost.epoch})


async def _do_nothing() -> None:
    return


def _none_is_cut_off(now: float) -> float:
    del now
    return float("-inf")


@dataclass(slots=True)
class Standing:
    """Standing of one control process; by default it leads a store that has lost nothing."""

    leader_address: str | None = None
    """Address of the process that leads in place of this one (it may be empty: not known); None:
    this one leads."""
    is_beginning: bool = False
    """Whether this process has just taken the lead, and reads what its leader has to know."""
    leases_until: float = float("-inf")
    """Until when gateways may have leases of the leader before; monotonic seconds. No change is
    answered sooner."""
    cut_off_until: Callable[[float], float] = _none_is_cut_off
    """Tells, at a time, until when gateways may have leases that are not connected any more."""
    generation: int = 1
    """Generation of the store: it grows when the store has lost events."""
    recovered: dict[str, int] = field(default_factory=dict)
    """Model -> epoch at which what the store had forgotten was taken away again."""
    recover: Callable[[Known], Coroutine[Any, Any, None]] = _take_note
    """Called, while changes wait, with what this process had read and the store has lost."""
    remember: Callable[[], Coroutine[Any, Any, None]] = _do_nothing
    """Called when a new epoch is published."""

    def require_leading(self) -> None:
        """Check that this process leads.

        Raises:
            NotLeader: Another one does, or may.
        """
        if self.leader_address is not None:
            raise NotLeader.because_of(self.leader_address)

    def require_begun(self) -> None:
        """Check that this process leads, and knows all that a leader has to know.

        Raises:
            NotLeader: It does not yet, or another one leads.
        """
        self.require_leading()
        if self.is_beginning:
            raise NotLeader("this control process has just taken the lead and reads the evidence")

    def unconfirmed(self, changed: Mapping[str, int]) -> list[str]:
        """Models that are as a store that went back left them.

        Args:
            changed: Model -> epoch of the last event that touched it.
        """
        return [name for name, epoch in self.recovered.items() if changed.get(name) == epoch]
