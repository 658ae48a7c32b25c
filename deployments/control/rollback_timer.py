"""How fast rollbacks are: from the durable event to the last gateway's acknowledgement."""

import asyncio
import logging

from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.tracing import trace_change, trace_rollback
from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.gateways.publisher import Delivery
from penumbra.deployments.rollouts.change_text import change_of, sentence
from penumbra.deployments.rollouts.payload import RolloutPayload, takes_away
from penumbra.deployments.store import observation_tables
from penumbra.deployments.store.observation_tables import RollbackTimes
from penumbra.monitoring.tracing.context import TraceContext
from penumbra.monitoring.tracing.tracer import Tracer

log = logging.getLogger(__name__)


class RollbackTimer:
    """Waits for acknowledgements, and stores when they came; delays nothing.

    Args:
        controller: Whose store it is.
        clocks: Time.
        acknowledge_seconds: For how long it waits.
    """

    def __init__(self, controller: Controller, clocks: Clocks, acknowledge_seconds: float) -> None:
        self._controller = controller
        self._clocks = clocks
        self._acknowledge_seconds = acknowledge_seconds
        self.tracer: Tracer | None = None
        """None: tracing is off."""
        self._running: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Let the metrics have the times of all rollbacks of the store.

        Raises:
            StoreUnavailable: It cannot be read.
        """
        for times in await self._controller.read(
            lambda one: one.look(observation_tables.all_times)
        ):
            self._controller.metrics.time_rollback(times)

    def note(
        self, epoch: int, actor: str, payload: RolloutPayload, committed: tuple[float, float]
    ) -> TraceContext | None:
        """Log a change, in one line that says it in a sentence as well, and record its span.

        Args:
            epoch: Of the event.
            actor: Who decided.
            payload: What the event says.
            committed: When the commit began, and when it was durable; monotonic seconds.

        Returns:
            See `trace_change`.
        """
        context = trace_change(self.tracer, (epoch, actor, payload), *committed)
        after = payload.after
        log.log(
            logging.WARNING if takes_away(payload) else logging.INFO,
            "rollout_changed",
            extra={
                "text": sentence(payload, actor),
                "model": after.spec.model,
                "candidate": after.spec.candidate,
                "change": change_of(payload),
                "stage": after.stage,
                "verdict": after.record.verdict,
                "cause": after.record.cause,
                "actor": actor,
                "epoch": epoch,
                **({} if context is None else {"trace_id": context.trace_hex}),
            },
        )
        return context

    def start(
        self,
        epoch: int,
        payload: RolloutPayload,
        durable_at: float,
        delivery: Delivery,
        context: TraceContext | None = None,
    ) -> None:
        """A rollback has become durable, then, by the monotonic clock.

        Args:
            epoch: Of the event.
            payload: What it says.
            durable_at: Monotonic seconds.
            delivery: The way to the gateways.
            context: Of its span, if it is traced.
        """
        age = self._clocks.monotonic() - durable_at
        durable = self._clocks.now().timestamp() - age
        task = asyncio.create_task(self._record(epoch, payload, durable, delivery, context))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Wait for those that are running."""
        await asyncio.gather(*self._running)

    async def _record(
        self,
        epoch: int,
        payload: RolloutPayload,
        durable_at: float,
        delivery: Delivery,
        context: TraceContext | None,
    ) -> None:
        arrival = await delivery.wait(self._acknowledge_seconds)
        times = RollbackTimes(
            epoch=epoch,
            model=payload.after.spec.model,
            candidate=payload.after.spec.candidate,
            observed_at=payload.decided.observed_at if payload.decided else None,
            durable_at=durable_at,
            acknowledged_at=None if arrival.seconds is None else durable_at + arrival.seconds,
            gateways=arrival.connected,
        )
        trace_rollback(self.tracer, context, payload, times, self._clocks.now())
        try:
            await self._controller.write(
                lambda store: store.write(lambda c: observation_tables.insert_times(c, times))
            )
        except DeploymentsError as error:
            # The rollback itself is durable and in force; only how fast it was is lost.
            log.error("rollback_times_not_stored", extra={"epoch": epoch, "code": error.code})
            return
        self._controller.metrics.time_rollback(times)
