"""Time from the death of the leading control process to the next one's first change.

Two control processes on one store and a gateway with a live candidate; the leader is killed
(`kill -9`), or stopped (SIGSTOP, and continued once the other leads), and comes back as standby:

    python -m benchmarks.takeover [--runs 20] [--stop] [--sqlite]

Each run tells when the standby leads, when the gateway is connected to it, and when the first
change is acknowledged by it. Meanwhile clients ask on; a failed answer, or a candidate's answer
after that change (a kill) was acknowledged, is counted.
"""

import argparse
import contextlib
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.flag_propagation import print_quantiles
from benchmarks.rollback_latency import postgres_store
from tests.support.behaviours import engine
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.lease_load import Answered, traffic
from tests.support.scripted_upstream import ScriptedUpstream

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.01
LEASE_SECONDS = 10.0


@dataclass
class Figures:
    """Times of all runs in milliseconds, and counts of answers."""

    leading: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    answers: int = 0
    failed: int = 0
    baseline: int = 0
    """Answers of the baseline before the kill: live share that the takeover cost."""
    late: int = 0


@contextlib.contextmanager
def builds() -> Iterator[list[ScriptedUpstream]]:
    """Two small servers."""
    found = [
        ScriptedUpstream(name, engine(Engine(name, created=number)))
        for number, name in enumerate(("full", "int8"), start=1)
    ]
    for build in found:
        build.start()
    try:
        yield found
    finally:
        for build in found:
            build.stop()


@contextlib.contextmanager
def controls(folder: Path, store: str, models: dict[str, object]) -> Iterator[list[ControlProcess]]:
    """Two control processes, of which the first leads."""
    settings = {"store": store, "lease_seconds": LEASE_SECONDS}
    with contextlib.ExitStack() as stack:
        found = []
        for name in "ab":
            (folder / name).mkdir()
            control = ControlProcess(folder / name, models, settings)
            stack.callback(control.__exit__)
            control.start(stands_by=bool(found))
            found.append(control)
        yield found


def seconds_until(is_so: Callable[[], bool], began: float) -> float:
    """Wait for something; returns milliseconds since `began`."""
    while time.monotonic() - began < PATIENCE_SECONDS:
        with contextlib.suppress(httpx.TransportError, httpx.HTTPStatusError):
            if is_so():
                return (time.monotonic() - began) * 1000
        threading.Event().wait(LOOK_SECONDS)
    raise SystemExit(f"still not so after {PATIENCE_SECONDS} s")


def is_connected(control: ControlProcess) -> bool:
    """Whether the gateway is linked to a control process."""
    return len(control.get("/gateways")["gateways"]) == 1


def measure(folder: Path, store: str, runs: int, *, is_stopped: bool) -> Figures:
    """Take the leader away again and again."""
    figures = Figures()
    with builds() as servers:
        model = external(**{server.name: server.url for server in servers})
        with controls(folder, store, {"demo": model}) as (leader, other):
            gateway = GatewayProcess(
                {
                    "control_url": leader.url,
                    "other_control_urls": (other.url,),
                    "gateway_id": "gateway-0",
                    "snapshot": {"epoch": 0, "models": {"demo": model}},
                },
                folder,
                {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
            )
            with gateway, traffic([gateway]) as seen:
                for number in range(runs):
                    seconds_until(lambda leader=leader: is_connected(leader), time.monotonic())
                    leader.post("/flags/demo/unkill", {})
                    leader.split(100)
                    seen.await_variant("int8", time.monotonic())
                    threading.Event().wait(1.0)
                    began = time.monotonic()
                    take_away(leader, is_stopped=is_stopped)
                    follow(figures, other, began, seen.between)
                    bring_back(leader, is_stopped=is_stopped)
                    leader, other = other, leader
                    sys.stderr.write(f"run {number + 1}: {figures.changed[-1]:.0f} ms\n")
    return figures


def follow(
    figures: Figures,
    control: ControlProcess,
    began: float,
    between: Callable[[float, float], list[Answered]],
) -> None:
    """Wait until the standby leads, and change something there."""
    figures.leading.append(seconds_until(lambda: control.role() == "ready", began))
    figures.connected.append(seconds_until(lambda: is_connected(control), began))
    asked_at = time.monotonic()
    killed = control.post("/flags/demo/kill", {})
    acknowledged_at = time.monotonic()
    killed.raise_for_status()
    figures.changed.append((acknowledged_at - began) * 1000)
    threading.Event().wait(1.0)
    before = between(began, asked_at)
    after = between(acknowledged_at, time.monotonic())
    figures.answers += len(before) + len(after)
    figures.failed += sum(answer.status != 200 for answer in (*before, *after))
    figures.baseline += sum(answer.variant == "full" for answer in before)
    figures.late += sum(answer.variant == "int8" for answer in after)


def take_away(control: ControlProcess, *, is_stopped: bool) -> None:
    """Kill a control process, or stop it."""
    if is_stopped:
        control.process.send_signal(signal.SIGSTOP)
    else:
        control.kill()


def bring_back(control: ControlProcess, *, is_stopped: bool) -> None:
    """Have it stand by."""
    if is_stopped:
        control.process.send_signal(signal.SIGCONT)
    else:
        control.start(stands_by=True)
    eventually(lambda: control.role() == "standby", timeout=PATIENCE_SECONDS, what="it to stand by")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--stop", action="store_true", help="stop the leader instead of killing it")
    parser.add_argument("--sqlite", action="store_true", help="on SQLite instead of PostgreSQL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        url = f"sqlite:///{folder / 'penumbra.db'}"
        store = url if options.sqlite else stack.enter_context(postgres_store())
        figures = measure(folder, store, options.runs, is_stopped=options.stop)
    print(
        f"{len(figures.changed)} times the leader was {'stopped' if options.stop else 'killed'},"
        f" {'SQLite' if options.sqlite else 'PostgreSQL'}, leases of {LEASE_SECONDS:g} s,"
        f" Python {platform.python_version()}, {os.cpu_count()} cores,"
        f" load average {os.getloadavg()[0]:.1f}; milliseconds\n"
    )
    print_quantiles(
        {
            "leader away → standby leads": figures.leading,
            "leader away → gateway connected to it": figures.connected,
            "**leader away → first change acknowledged**": figures.changed,
        }
    )
    print(
        f"\n{figures.answers} answers of a candidate with 100 %, {figures.failed} failed,"
        f" {figures.baseline} of the baseline before the kill was asked for, {figures.late} of the"
        f" candidate after it was acknowledged."
    )
    return 1 if figures.failed or figures.late else 0


if __name__ == "__main__":
    sys.exit(main())
