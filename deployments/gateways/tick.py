"""The control process's periodic tick: pending decisions, then a durable test write.

Gateways' leases last only while ticks succeed. A process that runs but cannot decide, or cannot
store its decisions, protects no traffic and must not look alive.
"""

import logging
from collections.abc import Awaitable, Callable

from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.monitoring.log_limit import LogLimit

log = logging.getLogger(__name__)


def _do_nothing() -> None:
    return


class ControlTick:
    """Runs the ticks.

    Args:
        liveness: Records every tick that succeeded.
        decide_pending: Makes the decisions that are due by time alone; raises if it cannot.
        prove_store: Writes something durably, the renewal of this process's right to write; raises
            if it cannot.
        now: Monotonic clock, seconds.
        on_success: Called after every tick that succeeded.
    """

    def __init__(
        self,
        liveness: GuardLiveness,
        decide_pending: Callable[[], Awaitable[None]],
        prove_store: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        on_success: Callable[[], None] = _do_nothing,
    ) -> None:
        self._liveness = liveness
        self._decide_pending = decide_pending
        self._prove_store = prove_store
        self._now = now
        self._on_success = on_success
        self._failures = LogLimit(now)

    async def run_once(self) -> None:
        """Tick once. A failure is logged at once, and at most once a minute while it goes on."""
        began = self._now()
        try:
            await self._decide_pending()
            await self._prove_store()
        except DeploymentsError as error:
            if (left_out := self._failures.take(error.code)) is not None:
                log.error(
                    "guard_not_alive",
                    extra={"code": error.code, "detail": error.message, "repeated": left_out},
                )
        except Exception as error:
            if (left_out := self._failures.take(type(error).__name__)) is not None:
                log.exception("guard_not_alive", extra={"repeated": left_out})
        else:
            self._liveness.note_tick(began)
            self._on_success()
            self._failures.end()
