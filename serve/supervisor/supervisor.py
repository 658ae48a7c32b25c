"""Brings an installation up, keeps it up, and takes it down again, also after failures.

Reading order: `supervise`, `Supervisor.run`.
"""

import asyncio
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.router.hangups import follow_hangups
from penumbra.serve.errors import ServeError, VariantFailed, WarmUpFailed
from penumbra.serve.hosting.plan import app_name
from penumbra.serve.processes import (
    become_subreaper,
    end_descendants,
    reap_adopted,
    start_time_of,
)
from penumbra.serve.supervisor.engines_in_force import EngineFollower, kept_engines
from penumbra.serve.supervisor.external import watch_external
from penumbra.serve.supervisor.fleet_process import FleetProcess
from penumbra.serve.supervisor.folder import StateFolder
from penumbra.serve.supervisor.layout import Layout, gateway_url, lay_out
from penumbra.serve.supervisor.preflight import check
from penumbra.serve.supervisor.process import SupervisedProcess
from penumbra.serve.supervisor.published_state import Observer, PublishedState
from penumbra.serve.supervisor.served_models import ServedModels
from penumbra.serve.supervisor.state import RunState, VariantRecord

_TICK_SECONDS = 5.0

_log = logging.getLogger(__name__)


def supervise(
    spec: PenumbraSpec,
    config: Path,
    environment: Mapping[str, str],
    observe: Observer,
    on_hangup: Callable[[], None] = lambda: None,
) -> None:
    """Run an installation until SIGTERM or SIGINT.

    Args:
        spec: The configuration.
        config: Its file.
        environment: The operator's environment variables.
        observe: Called after every change and every few seconds.
        on_hangup: Called after each SIGHUP; must return at once.

    Raises:
        ServeError: It could not be brought up; everything started has been stopped again.
    """
    folder = StateFolder(spec.state_dir)
    folder.lock()
    # Paths of sockets, Ray's and the comparator's, are limited to 107 characters, so not inside
    # the state folder.
    runtime = Path(tempfile.mkdtemp(prefix="penumbra-", dir="/tmp"))
    try:
        engines = kept_engines(folder)
        check(spec, is_in_force=engines is not None)
        become_subreaper()
        layout = lay_out(spec, config.absolute(), folder, runtime, environment, engines)
        supervisor = Supervisor(spec, config.absolute(), folder, layout, environment, observe)
        asyncio.run(supervisor.run_until_told(on_hangup))
    finally:
        folder.state.unlink(missing_ok=True)
        folder.replicas.unlink(missing_ok=True)
        folder.engines_status.unlink(missing_ok=True)
        shutil.rmtree(runtime, ignore_errors=True)
        folder.unlock()


class Supervisor:
    """The processes of one installation.

    Args:
        spec: The configuration.
        config: Its file.
        folder: The state folder, locked.
        layout: The programs to start.
        environment: The operator's environment variables.
        observe: Called after every change.
    """

    def __init__(
        self,
        spec: PenumbraSpec,
        config: Path,
        folder: StateFolder,
        layout: Layout,
        environment: Mapping[str, str],
        observe: Observer,
    ) -> None:
        is_local = spec.ray.address is None
        self._published = PublishedState(folder, observe, has_local_engines=is_local)
        self._variants: dict[str, VariantRecord] = {
            app_name(record.model, record.variant): record for record in layout.variants
        }
        self._served = ServedModels(self._variants, spec, environment, self._changed)
        self._gateways = [SupervisedProcess(program, self._changed) for program in layout.gateways]
        self._control = SupervisedProcess(layout.control, self._changed)
        self._fleet = FleetProcess(
            layout.fleet,
            layout.plan,
            self._variants,
            self._changed,
            sweep=self._sweep,
            required=layout.required,
        )
        runtime = Path(layout.plan.folder)
        self._follower = EngineFollower(spec, folder, runtime, self._fleet, self._served)
        self._comparator = (
            SupervisedProcess(layout.comparator, self._changed) if layout.comparator else None
        )
        self._processes = [
            *self._gateways,
            self._control,
            *([] if self._comparator is None else [self._comparator]),
            self._fleet,
        ]
        self._state = RunState(
            pid=os.getpid(),
            start_time=start_time_of(os.getpid()),
            config=str(config),
            is_ready=False,
            gateway_url=gateway_url(spec),
            admin_url=spec.control_url,
            control_tls=spec.control.client_tls,
        )

    async def run_until_told(self, on_hangup: Callable[[], None]) -> None:
        """Run until SIGTERM or SIGINT.

        Args:
            on_hangup: Called after each SIGHUP, which all processes but the engines get too.
        """

        async def reread() -> None:
            _log.info("hangup_passed_on")
            on_hangup()
            for process in (*self._gateways, self._control):
                process.hang_up()

        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        following = asyncio.create_task(follow_hangups(reread))
        try:
            await self.run(stop)
        finally:
            following.cancel()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises:
            ServeError: Something died before it was ready.
        """
        # First, so that it is said before all else.
        await self._served.compare()
        self._changed()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(process.run()) for process in self._processes]
                tasks.append(group.create_task(self._announce()))
                tasks.append(group.create_task(self._tick()))
                tasks.append(group.create_task(watch_external(self._variants, self._changed)))
                tasks.append(group.create_task(self._served.run()))
                tasks.append(group.create_task(self._follower.run()))
                await stop.wait()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures
        finally:
            await self._stop()

    async def _announce(self) -> None:
        for process in self._processes:
            await process.is_ready.wait()
        self._state = self._state.model_copy(update={"is_ready": True})
        self._changed()
        _log.info("installation_ready", extra={"gateway": self._state.gateway_url})

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            reap_adopted(own=self._own())
            self._published.refresh(self._state, self._variants)

    async def _stop(self) -> None:
        """Stop gateways first, so that requests which they accepted still find their engines.

        The comparator stops before the control process, to which it reports its last results.
        """
        await asyncio.gather(*(gateway.stop() for gateway in self._gateways))
        if self._comparator is not None:
            await self._comparator.stop()
        await self._control.stop()
        await self._fleet.stop()
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        """End the processes that a killed fleet process left behind."""
        left = end_descendants(keep=self._own())
        if left:
            _log.warning("orphans_ended", extra={"pids": left})

    def _own(self) -> list[int]:
        return [process.record.pid for process in self._processes if process.record is not None]

    def _changed(self) -> None:
        records = [process.record for process in self._processes]
        self._state = self._state.model_copy(
            update={
                "processes": tuple(record for record in records if record is not None),
                "variants": tuple(self._variants.values()),
            }
        )
        self._published.publish(self._state, self._variants)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to show: an engine's before one of a process that depends on it."""
    leaves: list[ServeError] = []
    pending: list[BaseException] = [failures]
    while pending:
        failure = pending.pop()
        if isinstance(failure, BaseExceptionGroup):
            pending.extend(failure.exceptions)
        elif isinstance(failure, ServeError):
            leaves.append(failure)
    if not leaves:
        return failures  # A defect of our own: show all of it.
    return min(leaves, key=lambda error: not isinstance(error, VariantFailed | WarmUpFailed))
