"""Keeps one process running: starts it, and restarts it when it dies or does not answer."""

import asyncio
import contextlib
import logging
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx

from penumbra.router.link.link_tls import probe_context
from penumbra.router.settings import ClientTlsSettings
from penumbra.serve.errors import ProcessFailed
from penumbra.serve.processes import die_with_parent, start_time_of
from penumbra.serve.supervisor.child_environment import NO_SECRETS, Secrets, child_environment
from penumbra.serve.supervisor.folder import tail
from penumbra.serve.supervisor.heartbeat import HEARTBEAT, Heartbeat
from penumbra.serve.supervisor.state import Phase, ProcessRecord

FIRST_BACKOFF_SECONDS = 0.5
LAST_BACKOFF_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A process that ran for longer than this is restarted after the first backoff again."""
_PROBE_SECONDS = 0.1
_PROBE_TIMEOUT = httpx.Timeout(2.0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """Settings for starting, watching and stopping one process."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """Added to what it gets of the supervisor's own."""
    log: Path
    ready_url: str = ""
    """Answers 200 as soon as the process is ready; empty if it says so in another way."""
    stop_seconds: float = 15.0
    """From SIGTERM to SIGKILL."""
    secrets: Secrets = NO_SECRETS
    """Secrets that it gets of the supervisor's own environment."""
    heartbeat: Heartbeat = HEARTBEAT
    tls: ClientTlsSettings = field(default_factory=ClientTlsSettings)
    """Has the certificate that probes show at a `ready_url` of https."""

    @property
    def base_url(self) -> str:
        """Base URL of its health checks; empty if it has none."""
        return self.ready_url.rpartition("/")[0]

    def whole_environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """All variables of the process; `own` are the supervisor's."""
        return {**child_environment(own, self.secrets), **self.environment}


class SupervisedProcess:
    """A process that is restarted when it dies.

    Args:
        program: What to run.
        on_change: Called after every change of `record`.
    """

    def __init__(self, program: Program, on_change: Callable[[], None]) -> None:
        self.program = program
        self.is_ready = asyncio.Event()
        """Set when it is ready for the first time."""
        self.phase = Phase.WAITING
        self._on_change = on_change
        self._process: Process | None = None
        self._start_time = 0.0
        self._restarts = 0

    @property
    def record(self) -> ProcessRecord | None:
        """For the state file; None before the first start."""
        if self._process is None:
            return None
        return ProcessRecord(
            name=self.program.name,
            pid=self._process.pid,
            start_time=self._start_time,
            phase=self.phase,
            log=str(self.program.log),
            url=self.program.base_url or None,
            restarts=self._restarts,
        )

    async def run(self) -> None:
        """Run until cancelled; `stop` ends the process then.

        Raises:
            ProcessFailed: It died before it was ready for the first time.
        """
        backoff = FIRST_BACKOFF_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await self._run_once()
            if not self.is_ready.is_set():
                raise ProcessFailed(
                    f"{self.program.name} ended ({describe_exit(code)}) before it was ready."
                    f" Its log: {self.program.log}",
                    tail(self.program.log),
                )
            if loop.time() - started > STEADY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            _log.warning(
                "process_died",
                extra={"program": self.program.name, "exit": code, "restart_seconds": backoff},
            )
            self.enter(Phase.RESTARTING)
            await self.clean_up()
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, LAST_BACKOFF_SECONDS)
            self._restarts += 1

    async def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL when it takes too long."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.program.stop_seconds):
                await process.wait()
        except TimeoutError:
            _log.warning("process_killed", extra={"program": self.program.name})
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def hang_up(self) -> None:
        """Have the process read again what it has in files; it ignores this while it starts."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    def enter(self, phase: Phase) -> None:
        """Enter a phase and call `on_change`."""
        self.phase = phase
        if phase is Phase.READY:
            self.is_ready.set()
        self._on_change()

    async def watch(self, process: Process) -> None:
        """Watch the process for as long as it runs: it becomes ready, and has to answer after that.

        One that does not answer any more is killed, and started again as one that died.
        """
        verify = probe_context(self.program.tls)
        async with httpx.AsyncClient(
            timeout=_PROBE_TIMEOUT, trust_env=False, verify=verify
        ) as client:
            # Another process becomes ready, so there is no event to wait for.
            while not await _answers(client, self.program.ready_url, 200):  # noqa: ASYNC110
                await asyncio.sleep(_PROBE_SECONDS)
            self.enter(Phase.READY)
            # One connection, which is kept: a process that has no descriptors left answers on it.
            client.timeout = httpx.Timeout(None)
            health = f"{self.program.base_url}/health"
            seconds = await self.program.heartbeat.await_silence(lambda: _answers(client, health))
        _log.error(
            "process_hung", extra={"program": self.program.name, "seconds": round(seconds, 1)}
        )
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # a process that was stopped does not hear SIGTERM

    async def _run_once(self) -> int:
        self._process = process = await self._start()
        self._start_time = start_time_of(process.pid)
        self.enter(Phase.LOADING)
        watcher = asyncio.create_task(self.watch(process))
        waiter = asyncio.create_task(process.wait())
        try:
            done, _ = await asyncio.wait([watcher, waiter], return_when=asyncio.FIRST_COMPLETED)
            if watcher in done:
                watcher.result()  # Raises what it found.
            return await waiter
        finally:
            watcher.cancel()
            waiter.cancel()
            await asyncio.gather(watcher, waiter, return_exceptions=True)

    async def _start(self) -> Process:
        with self._open_log() as log:
            return await asyncio.create_subprocess_exec(
                *self.program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self.stdout(log.fileno()),
                stderr=log,
                env=self.program.whole_environment(os.environ),
                # Ctrl-C in a terminal reaches the whole foreground group; only the supervisor
                # decides in which order its processes stop.
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    def _open_log(self) -> BinaryIO:
        try:
            return self.program.log.open("ab")
        except OSError as error:
            # A full disk, or a folder that is gone: it must serve all the same.
            _log.error("log_unwritable", extra={"program": self.program.name, "error": str(error)})
            return Path(os.devnull).open("ab")

    async def clean_up(self) -> None:
        """Clean up after a death, before the next start; subclasses end left-over processes."""

    def stdout(self, log: int) -> int:
        """File descriptor for standard output: the log, unless a subclass reads the output."""
        return log


def describe_exit(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit status {code}"
    return f"killed by {signal.Signals(-code).name}"


async def _answers(client: httpx.AsyncClient, url: str, wanted: int | None = None) -> bool:
    """Whether an HTTP answer comes; `wanted`: only with this status."""
    try:
        status = (await client.get(url)).status_code
    except httpx.HTTPError:
        return False
    return wanted in (None, status)
