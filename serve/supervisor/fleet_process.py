"""Supervises the fleet process and follows its variants from loading through warm-up to ready."""

import asyncio
import logging
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path

from penumbra.serve.errors import VariantFailed, WarmUpFailed
from penumbra.serve.hosting.events import VariantEvent, VariantState
from penumbra.serve.hosting.plan import FleetPlan
from penumbra.serve.hosting.warmup import warm_up
from penumbra.serve.supervisor.folder import tail
from penumbra.serve.supervisor.process import Program, SupervisedProcess
from penumbra.serve.supervisor.state import Phase, VariantRecord

_MESSAGE_CHARACTERS = 2000

_log = logging.getLogger(__name__)


class FleetProcess(SupervisedProcess):
    """Supervised `python -m penumbra.serve.hosting`, which reports the state of each variant.

    Args:
        program: The fleet process.
        plan: The applications that it deploys.
        records: Application -> the variant's record; kept up to date here.
        on_change: Called after every change of a record.
        sweep: Ends what a killed fleet process left behind; blocks.
    """

    def __init__(
        self,
        program: Program,
        plan: FleetPlan,
        records: dict[str, VariantRecord],
        on_change: Callable[[], None],
        *,
        sweep: Callable[[], None],
    ) -> None:
        super().__init__(program, on_change)
        self._variants = {variant.app: variant for variant in plan.variants}
        self._records = records
        self._sweep = sweep
        self._warming: dict[str, asyncio.Task[None]] = {}

    def stdout(self, log: int) -> int:
        """Events come on standard output."""
        return asyncio.subprocess.PIPE

    async def watch(self, process: Process) -> None:
        """Follow the events for as long as the process runs.

        Raises:
            VariantFailed: Before all had been ready once, a variant did not load, or not in time,
                or does not answer as it must.
        """
        async with asyncio.TaskGroup() as group:
            deadlines = [group.create_task(self._deadline(app)) for app in self._variants]
            try:
                await self._follow(process, group)
            finally:
                for task in [*deadlines, *self._warming.values()]:
                    task.cancel()
                self._warming.clear()

    async def clean_up(self) -> None:
        """End HAProxy and workers that outlived the fleet process: they hold its ports."""
        await asyncio.to_thread(self._sweep)

    async def _follow(self, process: Process, group: asyncio.TaskGroup) -> None:
        assert process.stdout is not None  # noqa: S101  # asked for in `stdout`
        last: dict[str, VariantEvent] = {}
        for app in self._variants:
            self._locate(app, {})
            self._set(app, Phase.LOADING)
        while line := await process.stdout.readline():
            event = VariantEvent.model_validate_json(line)
            self._locate(event.app, event.addresses)
            if event.model_copy(update={"addresses": {}}) == last.get(event.app):
                self._on_change()  # the same replicas, of which more is known
                continue
            last[event.app] = event.model_copy(update={"addresses": {}})
            self._take(event, group)

    def _take(self, event: VariantEvent, group: asyncio.TaskGroup) -> None:
        app, message = event.app, event.message[:_MESSAGE_CHARACTERS]
        match event.state:
            case VariantState.STARTING:
                self._set(app, Phase.LOADING, event.replicas, message)
            case VariantState.RUNNING:
                self._set(app, Phase.WARMING, event.replicas, message)
                self._stop_warming(app)
                self._warming[app] = group.create_task(self._warm_up(app))
            case VariantState.UNHEALTHY:
                self._stop_warming(app)
                self._set(app, Phase.RESTARTING, event.replicas, message)
            case VariantState.FAILED:
                self._set(app, Phase.FAILED, event.replicas, message)
                if not self.is_ready.is_set():
                    raise self._failure(app, f"could not be loaded: {message}")

    async def _warm_up(self, app: str) -> None:
        record = self._records[app]
        try:
            await warm_up(record.url, record.model, self._variants[app].replicas)
        except WarmUpFailed as error:
            if not self.is_ready.is_set():
                raise self._failure(app, f"does not answer as it must: {error.message}") from error
            # The gateways have seen it fail too. Ray replaces it, or the operator does.
            _log.warning("warm_up_failed", extra={"variant": app, "error": error.message})
            self._set(app, Phase.FAILED, message=error.message)
            return
        self._set(app, Phase.READY)
        if all(self._records[app].phase is Phase.READY for app in self._variants):
            self.enter(Phase.READY)

    async def _deadline(self, app: str) -> None:
        await asyncio.sleep(self._variants[app].startup_seconds)
        if self._records[app].phase is not Phase.READY and not self.is_ready.is_set():
            seconds = self._variants[app].startup_seconds
            raise self._failure(app, f"was not ready after {seconds:.0f} s (startup_seconds)")

    def _failure(self, app: str, what: str) -> VariantFailed:
        record = self._records[app]
        log = Path(record.log) if record.log else self.program.log
        return VariantFailed(
            f"models.{record.model}.variants.{record.variant} {what}\nIts log: {log}", tail(log)
        )

    def _stop_warming(self, app: str) -> None:
        task = self._warming.pop(app, None)
        if task is not None:
            task.cancel()

    def _locate(self, app: str, addresses: dict[str, str]) -> None:
        self._records[app] = self._records[app].model_copy(update={"addresses": addresses})

    def _set(self, app: str, phase: Phase, replicas: int | None = None, message: str = "") -> None:
        update: dict[str, object] = {"phase": phase, "message": message}
        if replicas is not None:
            update["replicas"] = replicas
        self._records[app] = self._records[app].model_copy(update=update)
        self._on_change()
