"""Beats while the control process does its work; gateways' leases end when it does not.

One beat is a whole tick: what the guard has to do regularly, then a durable write. A process that
runs but cannot decide, or cannot keep what it decides, guards nobody and must not look alive.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.gateways.liveness import GuardLiveness

log = logging.getLogger(__name__)


class ControlTick:
    """The control process's tick.

    Args:
        guardianship: Who is told of every beat.
        prove_store: Writes something durably; raises if it cannot.
        now: Monotonic clock, seconds.
    """

    def __init__(
        self,
        liveness: GuardLiveness,
        prove_store: Callable[[], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        self.on_tick: Callable[[], Awaitable[None]] = _do_nothing
        """What the guard has to do regularly; raises if it could not."""
        self._liveness = liveness
        self._prove_store = prove_store
        self._now = now
        self._is_well = True

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(self._liveness.period_seconds)

    async def beat(self) -> None:
        """Beat once; a failure is logged, once for each time that things go wrong."""
        began = self._now()
        try:
            await self.on_tick()
            await self._prove_store()
        except DeploymentsError as error:
            if self._is_well:
                log.error("guard_not_alive", extra={"code": error.code, "detail": error.message})
            self._is_well = False
        except Exception:
            log.exception("guard_not_alive")
            self._is_well = False
        else:
            self._liveness.ticked(began)
            self._is_well = True


async def _do_nothing() -> None:
    """There is nothing to do."""
