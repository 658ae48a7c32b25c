"""Supervises the fleet process and follows its variants from loading through warm-up to ready.

Reading order: FleetProcess.follow, FleetProcess.watch.
"""

import asyncio
import logging
from asyncio.subprocess import Process
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from penumbra.serve.errors import VariantFailed, WarmUpFailed
from penumbra.serve.hosting.events import VariantEvent, VariantState
from penumbra.serve.hosting.plan import FleetPlan, HostedVariant, PlanFile
from penumbra.serve.hosting.warmup import warm_up
from penumbra.serve.supervisor.folder import tail
from penumbra.serve.supervisor.process import Program, SupervisedProcess
from penumbra.serve.supervisor.state import Phase, VariantRecord

_MESSAGE_CHARACTERS = 2000

_log = logging.getLogger(__name__)


class FleetProcess(SupervisedProcess):
    """Supervised `python -m penumbra.serve.hosting`, which reports the state of each variant.

    Args:
        program: The fleet process; the last word of its command names the file of its plan.
        plan: The applications that it deploys first; without any it is started once there is one.
        records: Application -> the variant's record; kept up to date here.
        on_change: Called after every change of a record.
        sweep: Ends what a killed fleet process left behind; blocks.
        required: Applications without which the installation cannot begin; None: all of the plan.
    """

    def __init__(
        self,
        program: Program,
        plan: FleetPlan,
        records: dict[str, VariantRecord],
        on_change: Callable[[], None],
        *,
        sweep: Callable[[], None],
        required: Collection[str] | None = None,
    ) -> None:
        super().__init__(program, on_change)
        self._variants = {variant.app: variant for variant in plan.variants}
        self._required = frozenset(self._variants if required is None else required)
        self._records = records
        self._sweep = sweep
        self._warming: dict[str, asyncio.Task[None]] = {}
        self._deadlines: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        """The tasks of the variants, while the process runs."""
        self._has_variants = asyncio.Event()
        if self._variants:
            self._has_variants.set()
        else:
            self.is_ready.set()

    async def run(self) -> None:
        """Run from the first variant on, until cancelled; `stop` ends the process then.

        Raises:
            ProcessFailed: It died before it was ready for the first time.
            VariantFailed: See `watch`.
        """
        await self._has_variants.wait()
        await super().run()

    async def follow(self, plan: FleetPlan, records: Mapping[str, VariantRecord]) -> None:
        """Run the variants of another plan from now on; those that it does not change run on.

        Args:
            plan: The plan.
            records: Application -> the record of each variant that is new in it, or changed.

        Raises:
            OSError: The plan cannot be written; the fleet process does not follow it yet.
        """
        wanted = {variant.app: variant for variant in plan.variants}
        for app in self._variants.keys() - wanted.keys():
            self._end(app)
            self._records.pop(app, None)
        changed = [app for app, variant in wanted.items() if self._variants.get(app) != variant]
        # First, so that no event about the variant as it was is taken for one about the new one.
        self._variants = wanted
        for app in changed:
            self._end(app)
            self._records[app] = records[app]
            self._begin(app)
        self._announce()
        self._on_change()
        await asyncio.to_thread(PlanFile(Path(self.program.command[-1])).write, plan)
        if wanted:
            self._has_variants.set()

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
            self._group = group
            try:
                await self._read_events(process)
            finally:
                self._group = None
                for app in [*self._variants]:
                    self._end(app)

    async def clean_up(self) -> None:
        """End HAProxy and workers that outlived the fleet process: they hold its ports."""
        await asyncio.to_thread(self._sweep)

    def _begin(self, app: str) -> None:
        self._locate(app, {})
        self._set(app, Phase.LOADING)
        if self._group is not None:
            self._deadlines[app] = self._group.create_task(self._deadline(app))

    def _end(self, app: str) -> None:
        self._stop_warming(app)
        self._stop_deadline(app)

    def _stop_deadline(self, app: str) -> None:
        deadline = self._deadlines.pop(app, None)
        if deadline is not None:
            deadline.cancel()

    def _known(self, event: VariantEvent) -> HostedVariant | None:
        """The variant that an event is about; None if that is none that is wanted now."""
        variant = self._variants.get(event.app)
        is_it = variant is not None and variant.definition == event.definition
        return variant if is_it else None

    async def _read_events(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101  # asked for in `stdout`
        last: dict[str, VariantEvent] = {}
        for app in self._variants:
            self._begin(app)
        while line := await process.stdout.readline():
            event = VariantEvent.model_validate_json(line)
            if self._known(event) is None:
                continue
            self._locate(event.app, event.addresses)
            if event.model_copy(update={"addresses": {}}) == last.get(event.app):
                self._on_change()  # the same replicas, of which more is known
                continue
            last[event.app] = event.model_copy(update={"addresses": {}})
            self._take(event)

    def _take(self, event: VariantEvent) -> None:
        app, message = event.app, event.message[:_MESSAGE_CHARACTERS]
        match event.state:
            case VariantState.STARTING:
                self._set(app, Phase.LOADING, event.replicas, message)
            case VariantState.RUNNING:
                self._set(app, Phase.WARMING, event.replicas, message)
                self._stop_warming(app)
                assert self._group is not None  # noqa: S101  # set while events are read
                self._warming[app] = self._group.create_task(self._warm_up(app))
            case VariantState.UNHEALTHY:
                self._stop_warming(app)
                self._set(app, Phase.RESTARTING, event.replicas, message)
            case VariantState.FAILED:
                self._fail(app, f"could not be loaded: {message}", message)

    async def _warm_up(self, app: str) -> None:
        record = self._records[app]
        try:
            await warm_up(record.url, record.model, self._variants[app].replicas)
        except WarmUpFailed as error:
            # The gateways have seen it fail too. Ray replaces it, or the operator does.
            _log.warning("warm_up_failed", extra={"variant": app, "error": error.message})
            self._fail(app, f"does not answer as it must: {error.message}", error.message)
            return
        self._stop_deadline(app)
        self._set(app, Phase.READY)
        self._announce()

    def _announce(self) -> None:
        """Become ready with the last variant; one that failed and is not required counts too."""
        done = (Phase.READY, Phase.FAILED)
        settled = (self._records[app].phase in done for app in self._variants)
        if self._group is not None and all(settled):
            self.enter(Phase.READY)

    async def _deadline(self, app: str) -> None:
        await asyncio.sleep(self._variants[app].startup_seconds)
        if self._records[app].phase is not Phase.READY:
            seconds = self._variants[app].startup_seconds
            what = f"was not ready after {seconds:.0f} s (startup_seconds)"
            self._fail(app, what, what)

    def _fail(self, app: str, what: str, message: str) -> None:
        """Take note that a variant does not serve; the others go on, if they have begun.

        Raises:
            VariantFailed: The installation has not begun, and cannot without it.
        """
        self._set(app, Phase.FAILED, message=message)
        if not self.is_ready.is_set() and app in self._required:
            raise self._failure(app, what)
        self._announce()

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
