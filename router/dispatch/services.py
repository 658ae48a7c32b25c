"""Services that the dispatches of one model share: limits, clock, judge, budget of kept bytes."""

from collections.abc import Callable
from dataclasses import dataclass

from penumbra.router.dispatch.attribution import Arbiter
from penumbra.router.dispatch.kept_bytes import KeptBytes
from penumbra.router.settings import LimitSettings


@dataclass(frozen=True, slots=True)
class DispatchServices:
    """Services of all dispatches of one model."""

    limits: LimitSettings
    clock: Callable[[], float]
    """Seconds; stands still while the process does."""
    arbiter: Arbiter
    kept_bytes: KeptBytes
