"""A supervised process is started, restarted and stopped; real processes, no sockets."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import Process
from pathlib import Path

import psutil
import pytest

from penumbra.serve.errors import ProcessFailed
from penumbra.serve.processes import start_time_of
from penumbra.serve.supervisor import process as keeping
from penumbra.serve.supervisor.process import Program, SupervisedProcess, describe_exit
from penumbra.serve.supervisor.state import Phase

WAIT = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"


class ObservedProcess(SupervisedProcess):
    """Ready as soon as it is started; remembers the phases."""

    __test__ = False

    def __init__(self, code: str, folder: Path, **options: float) -> None:
        self.phases: list[Phase] = []
        self.entered: dict[Phase, asyncio.Event] = {phase: asyncio.Event() for phase in Phase}
        program = Program(
            name="worker",
            command=(sys.executable, "-c", code),
            environment={"GIVEN": "yes"},
            log=folder / "worker.log",
            **options,
        )
        super().__init__(program, self._changed)

    async def watch(self, process: Process) -> None:
        self.enter(Phase.READY)

    def _changed(self) -> None:
        self.phases.append(self.phase)
        self.entered[self.phase].set()


class NeverReadyProcess(ObservedProcess):
    async def watch(self, process: Process) -> None:
        await asyncio.Event().wait()


async def stop(process: SupervisedProcess, task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await process.stop()


async def test_process_that_dies_before_it_is_ready_fails_with_its_log(tmp_path: Path) -> None:
    process = NeverReadyProcess("import sys; print('no such model'); sys.exit(3)", tmp_path)
    with pytest.raises(ProcessFailed, match=r"worker ended \(exit status 3\)") as failure:
        await process.run()
    assert failure.value.log_tail == "no such model"


async def test_process_that_is_gone_before_it_is_looked_at_fails_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_late(pid: int) -> float:
        while psutil.pid_exists(pid):  # asyncio's own thread collects it
            time.sleep(0.01)
        return start_time_of(pid)

    monkeypatch.setattr(keeping, "start_time_of", look_late)
    process = NeverReadyProcess("import sys; print('no such model'); sys.exit(3)", tmp_path)
    with pytest.raises(ProcessFailed, match=r"worker ended \(exit status 3\)") as failure:
        await process.run()
    assert failure.value.log_tail == "no such model"


async def test_a_process_gets_the_variables_of_traces_and_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv("PENUMBRA_ADMIN_TOKEN", "of the supervisor")
    show = "import os; [print(n) for n in os.environ if n.startswith(('OTEL_', 'PENUMBRA_'))]"
    process = NeverReadyProcess(show, tmp_path)
    with pytest.raises(ProcessFailed) as failure:
        await process.run()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in failure.value.log_tail
    assert "PENUMBRA_ADMIN_TOKEN" not in failure.value.log_tail


async def test_process_that_dies_later_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "FIRST_BACKOFF_SECONDS", 0.0)
    process = ObservedProcess(WAIT, tmp_path)
    task = asyncio.create_task(process.run())
    await process.entered[Phase.READY].wait()
    first = process.record
    assert first is not None
    process.entered[Phase.READY].clear()
    process._process.kill()  # type: ignore[union-attr]
    await process.entered[Phase.READY].wait()
    second = process.record
    assert second is not None
    assert (second.pid, second.restarts) != (first.pid, 0)
    assert second.restarts == 1
    assert process.phases == [
        Phase.LOADING,
        Phase.READY,
        Phase.RESTARTING,
        Phase.LOADING,
        Phase.READY,
    ]
    await stop(process, task)


async def test_restarts_back_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        if len(delays) == 4:
            enough.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(f"{keeping.__name__}.asyncio.sleep", sleep)
    monkeypatch.setattr(keeping, "LAST_BACKOFF_SECONDS", 1.5)
    process = ObservedProcess("pass", tmp_path)
    process.is_ready.set()
    task = asyncio.create_task(process.run())
    await enough.wait()
    assert delays == [0.5, 1.0, 1.5, 1.5]
    await stop(process, task)


async def test_stop_asks_first_and_then_kills(tmp_path: Path) -> None:
    polite = ObservedProcess(
        WAIT.replace("signal.pause", "print('up', flush=True); signal.pause"), tmp_path
    )
    deaf = ObservedProcess(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
        "while True: signal.pause()",
        tmp_path,
        stop_seconds=0.2,
    )
    for process, code in ((polite, 0), (deaf, -signal.SIGKILL)):
        process.program.log.unlink(missing_ok=True)
        task = asyncio.create_task(process.run())
        await process.entered[Phase.READY].wait()
        # Another process writes the file, so there is no event to wait for.
        while "up" not in process.program.log.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await stop(process, task)
        assert process._process is not None
        assert process._process.returncode == code


async def test_process_gets_its_own_tokens_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENUMBRA_ADMIN_TOKEN", "secret")
    monkeypatch.setenv("UPSTREAM_KEY", "secret")
    monkeypatch.setenv("PLAIN_SETTING", "kept")
    names = ("PENUMBRA_ADMIN_TOKEN", "UPSTREAM_KEY", "PLAIN_SETTING", "GIVEN")
    process = NeverReadyProcess(f"import os; print([os.environ.get(n) for n in {names}])", tmp_path)
    with pytest.raises(ProcessFailed) as failure:
        await process.run()
    assert failure.value.log_tail == "[None, None, 'kept', 'yes']"


@pytest.mark.parametrize(("code", "words"), [(0, "exit status 0"), (-9, "killed by SIGKILL")])
def test_exit_is_described(code: int, words: str) -> None:
    assert describe_exit(code) == words
