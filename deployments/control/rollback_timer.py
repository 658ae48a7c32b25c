"""Measures rollbacks: from the durable event to the last gateway's acknowledgement."""

import asyncio
import logging

from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.tracing import CommittedChange, trace_change, trace_rollback
from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.gateways.delivery import Delivery
from penumbra.deployments.rollouts.change_text import change_of, sentence
from penumbra.deployments.rollouts.payload import takes_away
from penumbra.deployments.store import observation_tables
from penumbra.deployments.store.observation_tables import RollbackTimes
from penumbra.monitoring.tracing.context import TraceContext
from penumbra.monitoring.tracing.tracer import Tracer

log = logging.getLogger(__name__)


class RollbackTimer:
    """Logs and traces changes, and stores the times of rollbacks; delays no change.

    Args:
        controller: Holds the store.
        clocks: Wall clock and monotonic clock.
        acknowledge_seconds: Longest wait for the acknowledgements of a rollback.
        tracer: None: tracing is off.
    """

    def __init__(
        self,
        controller: Controller,
        clocks: Clocks,
        acknowledge_seconds: float,
        tracer: Tracer | None = None,
    ) -> None:
        self._controller = controller
        self._clocks = clocks
        self._acknowledge_seconds = acknowledge_seconds
        self._tracer = tracer
        self._running: set[asyncio.Task[None]] = set()
        self._is_loaded = False

    async def load(self) -> None:
        """Count the times of all stored rollbacks in the metrics, at the first call only.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        if self._is_loaded:
            return
        for times in await self._controller.read(
            lambda store: store.look(observation_tables.all_times)
        ):
            self._controller.metrics.time_rollback(times)
        self._is_loaded = True

    def note(self, change: CommittedChange, delivery: Delivery) -> None:
        """Log a change and record its span. If it takes traffic away, begin to time it.

        Args:
            change: The change.
            delivery: The delivery of its epoch to the gateways.
        """
        context = trace_change(self._tracer, change)
        self._log(change, context)
        if not takes_away(change.payload):
            return
        age = self._clocks.monotonic() - change.durable_at
        durable_at = self._clocks.now().timestamp() - age
        task = asyncio.create_task(self._time(change, durable_at, delivery, context))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Wait for the times of the last rollbacks."""
        await asyncio.gather(*self._running)

    def _log(self, change: CommittedChange, context: TraceContext | None) -> None:
        payload, after = change.payload, change.payload.after
        log.log(
            logging.WARNING if takes_away(payload) else logging.INFO,
            "rollout_changed",
            extra={
                "text": sentence(payload, change.actor),
                "model": after.spec.model,
                "candidate": after.spec.candidate,
                "change": change_of(payload),
                "stage": after.stage,
                "verdict": after.record.verdict,
                "cause": after.record.cause,
                "actor": change.actor,
                "epoch": change.epoch,
                **({} if context is None else {"trace_id": context.trace_hex}),
            },
        )

    async def _time(
        self,
        change: CommittedChange,
        durable_at: float,
        delivery: Delivery,
        context: TraceContext | None,
    ) -> None:
        payload = change.payload
        arrival = await delivery.wait(self._acknowledge_seconds)
        times = RollbackTimes(
            epoch=change.epoch,
            model=payload.after.spec.model,
            candidate=payload.after.spec.candidate,
            observed_at=payload.decided.observed_at if payload.decided else None,
            durable_at=durable_at,
            acknowledged_at=None if arrival.seconds is None else durable_at + arrival.seconds,
            gateways=arrival.connected,
        )
        trace_rollback(self._tracer, context, payload, times, self._clocks.now())
        try:
            await self._controller.on_store_thread(
                lambda store: store.write(lambda c: observation_tables.insert_times(c, times))
            )
        except DeploymentsError as error:
            # The rollback itself is durable and in force; only its times are lost.
            log.error(
                "rollback_times_not_stored", extra={"epoch": change.epoch, "code": error.code}
            )
            return
        self._controller.metrics.time_rollback(times)
