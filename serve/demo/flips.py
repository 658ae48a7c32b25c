"""First act of the demo: flags change under traffic, and a replica is killed."""

import asyncio
import contextlib
import os
import signal

from penumbra.serve.demo.commands import DemoFailed, Operator, require_no_errors
from penumbra.serve.demo.prepare import BASELINE
from penumbra.serve.demo.replicas import replica_pids
from penumbra.serve.demo.traffic import MODEL, Traffic, TrafficCounts

PHASE_SECONDS = 4.0

_BASELINE_ONLY = "all traffic on the baseline"
_KILLED = "kill switch"
_STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (_BASELINE_ONLY, ()),
    ("int8 at 10 %", ("set", MODEL, "--split", "int8=10")),
    ("int8 at 40 %, int4 at 20 %", ("set", MODEL, "--split", "int8=40", "--split", "int4=20")),
    (_KILLED, ("kill", MODEL)),
    ("switched back on", ("unkill", MODEL)),
)


async def flip_flags(operator: Operator, traffic: Traffic) -> list[str]:
    """Play the act under traffic that flows already; returns its part of the summary.

    Raises:
        DemoFailed: A client saw an error, or a share is not what its flag says.
    """
    operator.say("Flags are flipped under traffic.")
    phases: list[tuple[str, TrafficCounts]] = []
    traffic.next_counts()
    for name, command in _STEPS:
        if command:
            await operator.give("flags", *command, "--reason", "demo")
            await traffic.settle()  # answers that were under way are of the flags before
            traffic.next_counts()
        phases.append(await _phase(operator, traffic, name))
    _kill_replica(operator, f"{MODEL}-int8")
    phases.append(await _phase(operator, traffic, "int8's replica killed"))
    await operator.give("flags", "set", MODEL, "--split", "int8=0", "--reason", "demo")
    _check(phases)
    return [
        "## Flags flipped under traffic",
        "",
        "| flags | requests | errors seen by clients | answered by | failovers |",
        "|---|---|---|---|---|",
        *(_row(name, counts) for name, counts in phases),
    ]


async def _phase(operator: Operator, traffic: Traffic, name: str) -> tuple[str, TrafficCounts]:
    await asyncio.sleep(PHASE_SECONDS)
    counts = traffic.next_counts()
    operator.report(name, counts)
    return name, counts


def _kill_replica(operator: Operator, application: str) -> None:
    pids = replica_pids(operator.folder, application)
    if not pids:
        raise DemoFailed(f"no replica of {application} was found")
    operator.console.print(f"[bold]$ kill -9[/] {' '.join(map(str, pids))}   ({application})")
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _check(phases: list[tuple[str, TrafficCounts]]) -> None:
    for name, counts in phases:
        require_no_errors(name, counts)
        if name in (_BASELINE_ONLY, _KILLED) and set(counts.by_variant) - {BASELINE}:
            raise DemoFailed(f"a candidate answered during: {name}")


def _row(name: str, counts: TrafficCounts) -> str:
    total = max(1, sum(counts.by_variant.values()))
    answered = ", ".join(
        f"{who} {count} ({count / total:.0%})" for who, count in sorted(counts.by_variant.items())
    )
    return (
        f"| {name} | {counts.requests} | {len(counts.errors)} | {answered} | {counts.failovers} |"
    )
