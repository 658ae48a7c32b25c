"""`penumbra up`, `down`, `status` and `gateway`: start, stop and show an installation."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penumbra.deployments.config.loader import load
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.monitoring.logs import JsonFormatter
from penumbra.router.hangups import ignore_hangups
from penumbra.serve.cli.file_difference import rereading, telling_difference
from penumbra.serve.cli.report import Health, collect, print_report
from penumbra.serve.cli.startup_view import startup_view
from penumbra.serve.errors import ConfigurationInvalid, NotRunning, ProcessFailed, ServeError
from penumbra.serve.processes import end_process, find_process, wait_until_gone
from penumbra.serve.supervisor.folder import StateFolder, tail
from penumbra.serve.supervisor.layout import control_program, gateway_program, gateway_settings
from penumbra.serve.supervisor.state import read_running, read_state
from penumbra.serve.supervisor.supervisor import supervise

EXIT_DEGRADED = 1
_DOWN_SECONDS = 180.0
"""More than all programs may take one after another (`Program.stop_seconds`)."""
_POLL_SECONDS = 0.1

File = Annotated[Path, typer.Option("--file", "-f", help="The configuration.")]
_FILE = Path("penumbra.yaml")


def up(
    file: File = _FILE,
    address: Annotated[
        str | None, typer.Option(help="Join this Ray cluster instead of starting one.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when everything is ready.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a table.")] = False,
) -> None:
    """Start the variants, the control process and the gateways, and keep them running."""
    ignore_hangups()
    spec = _load(file, address)
    if detach:
        _start_detached(spec, file, address)
        return
    folder = StateFolder(spec.state_dir)
    folder.logs.mkdir(parents=True, exist_ok=True)
    _log_to(folder.log("up"))
    console = Console()
    with startup_view(console, is_plain=plain or not console.is_terminal) as observe:

        def tell(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        def reread() -> None:
            rereading(lambda: _load(file, address), file, tell)

        supervise(spec, file, os.environ, telling_difference(observe, spec, file, tell), reread)
    console.print("Everything is stopped.")


def down(file: File = _FILE) -> None:
    """Stop a running `penumbra up`, and end processes that a killed one left."""
    folder = StateFolder(_load(file).state_dir)
    state = read_state(folder.state)
    supervisor = find_process(state.pid, state.start_time)
    if supervisor is not None:
        supervisor.send_signal(signal.SIGTERM)
        if not wait_until_gone(state.pid, state.start_time, _DOWN_SECONDS):
            typer.echo(f"Process {state.pid} did not stop in {_DOWN_SECONDS:.0f} s: killing it.")
            supervisor.kill()
    # Each is looked up by id and start time: an id that was used again belongs to another process.
    for record in state.processes:
        end_process(record.pid, record.start_time)
    folder.state.unlink(missing_ok=True)
    if supervisor is None:
        raise NotRunning(
            f"`penumbra up` (process {state.pid}) was not running any more; cleaned up after it"
        )
    typer.echo("Everything is stopped.")


def status(
    file: File = _FILE,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what runs, and how it is: exit status 0 healthy, 1 degraded, 3 not running."""
    folder = StateFolder(_load(file).state_dir)
    try:
        state = read_running(folder.state)
    except NotRunning as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"health": Health.NOT_RUNNING, "message": error.message}))
        raise typer.Exit(3) from error
    report = collect(state, folder.tokens(os.environ)["PENUMBRA_ADMIN_TOKEN"])
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        print_report(report, Console())
    if report.health is not Health.HEALTHY:
        raise typer.Exit(EXIT_DEGRADED)


def gateway(
    file: File = _FILE,
    index: Annotated[
        int, typer.Option(min=0, help="Index of the process, below gateway.processes.")
    ] = 0,
) -> None:
    """Run one gateway process in the foreground, beside a control process elsewhere."""
    spec = _load(file)
    if index >= spec.gateway.processes:
        raise ConfigurationInvalid(
            f"--index: found {index}, wanted less than gateway.processes, {spec.gateway.processes}"
        )
    folder = StateFolder(spec.state_dir)
    folder.logs.mkdir(parents=True, exist_ok=True)
    program = gateway_program(
        index, spec, gateway_settings(spec)[index], folder, folder.tokens(os.environ)
    )
    os.execve(sys.executable, program.command, program.whole_environment(os.environ))  # noqa: S606


def control(
    file: File = _FILE,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Instead of control.port.")
    ] = None,
) -> None:
    """Run one control process in the foreground; it stands by while another one leads the store."""
    spec = _load(file)
    folder = StateFolder(spec.state_dir)
    folder.logs.mkdir(parents=True, exist_ok=True)
    program = control_program(spec, file, folder, folder.tokens(os.environ))
    command = (*program.command, *(() if port is None else ("--port", str(port))))
    os.execve(sys.executable, command, program.whole_environment(os.environ))  # noqa: S606


def _load(file: Path, address: str | None = None) -> PenumbraSpec:
    try:
        spec = load(file)
    except ConfigInvalid as error:
        raise ConfigurationInvalid(error.message) from error
    if address is None:
        return spec
    return spec.model_copy(update={"ray": spec.ray.model_copy(update={"address": address})})


def _log_to(path: Path) -> None:
    """Send the supervisor's own events to a file; the terminal shows the startup view."""
    handler = logging.FileHandler(path)
    handler.setFormatter(JsonFormatter("up"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # A line that cannot be written, as on a full disk, is no traceback in the terminal.
    logging.raiseExceptions = False
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _start_detached(spec: PenumbraSpec, file: Path, address: str | None) -> None:
    folder = StateFolder(spec.state_dir)
    folder.logs.mkdir(parents=True, exist_ok=True)
    output = folder.log("up-output")
    command = [
        sys.executable,
        "-P",
        "-m",
        "penumbra.serve.cli",
        "up",
        "--file",
        str(file),
        "--plain",
    ]
    if address is not None:
        command += ["--address", address]
    with output.open("wb") as log:
        started = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(started, folder, output)
    except BaseException:
        started.terminate()
        started.wait()
        raise


def _wait_until_ready(started: subprocess.Popen[bytes], folder: StateFolder, output: Path) -> None:
    shown = 0
    while True:
        shown += _show(output, shown)
        if started.poll() is not None:
            raise ProcessFailed(
                f"`penumbra up` ended with status {started.returncode}; its output: {output}",
                tail(output) if not shown else "",
            )
        try:
            state = read_state(folder.state)
        except ServeError:
            state = None
        if state is not None and state.pid == started.pid and state.is_ready:
            _show(output, shown)
            return
        time.sleep(_POLL_SECONDS)


def _show(output: Path, offset: int) -> int:
    with output.open("rb") as file:
        file.seek(offset)
        new = file.read()
    sys.stdout.write(new.decode(errors="replace"))
    sys.stdout.flush()
    return len(new)
