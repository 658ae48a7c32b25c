"""`make demo`: the whole installation on this machine, under traffic, while flags are flipped.

Makes the builds, starts everything through `penumbra up`, sends traffic, changes flags through
`penumbra flags`, kills a replica, asks every build the same tasks, and writes a summary. Stops
whatever it started, however it ends, unless it is told to keep it running.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markdown import Markdown

from deployments.catalogue import load
from deployments.spec import PenumbraSpec
from serve.demo.prepare import VARIANTS, prepare
from serve.demo.replicas import replica_pids
from serve.demo.tasks import SLICES, make_tasks
from serve.demo.traffic import MODEL, Tally, Traffic, ask, client
from serve.errors import ServeError
from serve.supervisor.folder import StateFolder
from serve.supervisor.state import STATE_FILE, read_running

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deployments" / "examples" / "demo.yaml"
FOLDER = ROOT / "var" / "demo"
PHASE_SECONDS = 10.0
CLIENTS = 6
TASKS_PER_SLICE = 16


class DemoFailed(Exception):
    """The demo did not show what it should."""


class Demo:
    """One run.

    Args:
        console: Where it tells what happens.
        spec: The installation.
    """

    def __init__(self, console: Console, spec: PenumbraSpec) -> None:
        self._console = console
        self._url = f"http://{spec.gateway.host}:{spec.gateway.port}"
        self._folder = StateFolder(spec.state_dir)
        self._environment = {
            **os.environ,
            **self._folder.tokens({}),
            "PENUMBRA_ADMIN_URL": f"http://{spec.control.host}:{spec.control.port}",
        }

    async def tell(self) -> str:
        """Run the story; returns the summary as Markdown.

        Raises:
            DemoFailed: A client saw an error, or a share is not what its flag says.
        """
        phases = await self._flip_flags()
        table = await self._compare()
        return "\n".join(
            [
                "# What the demo did",
                "",
                "## Flags flipped under traffic",
                "",
                "| flags | requests | errors seen by clients | answered by | failovers |",
                "|---|---|---|---|---|",
                *(_phase_row(name, tally) for name, tally in phases),
                "",
                f"## The same {TASKS_PER_SLICE} held-out tasks for each slice and build: right",
                "",
                *table,
                "",
            ]
        )

    async def _flip_flags(self) -> list[tuple[str, Tally]]:
        steps: list[tuple[str, list[str]]] = [
            ("everybody on the baseline", []),
            ("int8 at 10 %", ["set", MODEL, "--split", "int8=10"]),
            ("int8 at 50 %", ["set", MODEL, "--split", "int8=50"]),
            (
                "int8 at 40 %, int4 at 20 %",
                ["set", MODEL, "--split", "int8=40", "--split", "int4=20"],
            ),
            ("kill switch", ["kill", MODEL]),
            ("switched back on", ["unkill", MODEL]),
        ]
        traffic = Traffic(self._url, CLIENTS)
        phases = []
        async with traffic.flowing():
            for name, command in steps:
                if command:
                    await self._flags(*command)
                    traffic.next_tally()
                await asyncio.sleep(PHASE_SECONDS)
                phases.append((name, traffic.next_tally()))
                self._report(*phases[-1])
            self._kill_replica(f"{MODEL}-int8")
            await asyncio.sleep(PHASE_SECONDS)
            phases.append(("int8's replica killed", traffic.next_tally()))
            self._report(*phases[-1])
        await self._flags("set", MODEL, "--split", "int8=0")
        _check(phases)
        return phases

    def _kill_replica(self, application: str) -> None:
        pids = replica_pids(self._folder, application)
        if not pids:
            raise DemoFailed(f"no replica of {application} was found")
        self._console.print(f"[bold]$ kill -9[/] {' '.join(map(str, pids))}   ({application})")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _flags(self, *arguments: str) -> None:
        command = ["flags", *arguments, "--reason", "demo"]
        self._console.print(f"[bold]$ penumbra[/] {' '.join(command)}")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "serve.cli",
            *command,
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        self._console.print(output.decode().rstrip(), style="cyan", highlight=False)
        if process.returncode != 0:
            raise DemoFailed(f"`penumbra {' '.join(command)}` failed")

    def _report(self, name: str, tally: Tally) -> None:
        answered = ", ".join(f"{who} {count}" for who, count in sorted(tally.by_variant.items()))
        self._console.print(
            f"  {name}: {tally.requests} requests, {len(tally.errors)} errors; {answered}"
            + (f"; {tally.failovers} failed over" if tally.failovers else "")
        )

    async def _compare(self) -> list[str]:
        self._console.print("Asking every build the same held-out tasks ...")
        right: Counter[tuple[str, str]] = Counter()
        limit = asyncio.Semaphore(CLIENTS)
        async with client(self._url) as http:

            async def one(variant: str, slice_name: str, number: int) -> None:
                task = make_tasks(slice_name, TASKS_PER_SLICE, seed=1)[number]
                async with limit:
                    reply = await ask(
                        http, task, {"x-penumbra-variant": variant}, is_stream=number % 2 == 0
                    )
                if reply.variant == variant:
                    right[slice_name, variant] += reply.is_right

            async with asyncio.TaskGroup() as group:
                for variant in VARIANTS:
                    await self._wait_for(variant)
                    for slice_name in SLICES:
                        for number in range(TASKS_PER_SLICE):
                            group.create_task(one(variant, slice_name, number))
        header = f"| slice | {' | '.join(VARIANTS)} |"
        rows = [
            f"| {name} | "
            + " | ".join(f"{right[name, v]}/{TASKS_PER_SLICE}" for v in VARIANTS)
            + " |"
            for name in SLICES
        ]
        return [header, "|---" * (len(VARIANTS) + 1) + "|", *rows]

    async def _wait_for(self, variant: str) -> None:
        """Until a variant answers for itself again: the killed replica takes a while."""
        task = make_tasks("sort", 1, seed=2)[0]
        deadline = time.monotonic() + 180
        async with client(self._url) as http:
            while time.monotonic() < deadline:
                reply = await ask(http, task, {"x-penumbra-variant": variant}, is_stream=False)
                if reply.variant == variant:
                    return
                await asyncio.sleep(1)
        raise DemoFailed(f"{variant} did not come back")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    is_kept = parser.parse_args(arguments).keep
    console = Console()
    started = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    spec = load(CONFIG)
    if not _is_free(console, spec):
        return 1
    is_done = False
    try:
        prepare(FOLDER / "variants", console.print)
        _start()
        summary = asyncio.run(Demo(console, spec).tell())
        _leave(console, summary, time.monotonic() - started)
        is_done = True
    except (DemoFailed, ExceptionGroup) as error:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        console.print(f"[red]The demo failed:[/] {causes[0]}")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    finally:
        if is_kept and is_done:
            _print_urls(console, spec)
        elif (spec.state_dir / STATE_FILE).exists():
            subprocess.run(_command("down"), cwd=ROOT, check=False)  # noqa: S603
    return 0


def _leave(console: Console, summary: str, seconds: float) -> None:
    summary += f"\nTook {seconds / 60:.1f} minutes, the installation of packages left out.\n"
    (FOLDER / "summary.md").write_text(summary)
    console.print(Markdown(summary))
    console.print(f"Summary: {FOLDER / 'summary.md'}")


def _interrupt(*_: object) -> NoReturn:
    # Both signals take the same way out, also where a parent had SIGINT ignored.
    raise KeyboardInterrupt


def _is_free(console: Console, spec: PenumbraSpec) -> bool:
    """Whether no demo runs; then the durable flags of an earlier one are forgotten."""
    try:
        read_running(spec.state_dir / STATE_FILE)
    except ServeError:
        for file in spec.state_dir.glob("penumbra.db*"):
            file.unlink()
        return True
    console.print("The demo is running already; stop it first:")
    console.print(f".venv/bin/penumbra down -f {CONFIG.relative_to(ROOT)}")
    return False


def _start() -> None:
    """Start the installation; an interrupted start takes what it has started along."""
    process = subprocess.Popen(_command("up", "--detach"), cwd=ROOT)  # noqa: S603
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    if code != 0:
        raise DemoFailed("`penumbra up` did not start")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serve.cli", *arguments, "-f", str(CONFIG)]


def _phase_row(name: str, tally: Tally) -> str:
    total = max(1, sum(tally.by_variant.values()))
    answered = ", ".join(
        f"{who} {count} ({count / total:.0%})" for who, count in sorted(tally.by_variant.items())
    )
    return f"| {name} | {tally.requests} | {len(tally.errors)} | {answered} | {tally.failovers} |"


def _check(phases: list[tuple[str, Tally]]) -> None:
    errors = [f"{name}: {error}" for name, tally in phases for error in tally.errors]
    if errors:
        raise DemoFailed(f"clients saw {len(errors)} errors, the first: {errors[0]}")
    by_name = dict(phases)
    for name in ("everybody on the baseline", "kill switch"):
        if set(by_name[name].by_variant) - {"full"}:
            raise DemoFailed(f"a candidate answered during: {name}")


def _print_urls(console: Console, spec: PenumbraSpec) -> None:
    gateway, control = spec.gateway, spec.control
    console.print(f"OpenAI API   http://{gateway.host}:{gateway.port}/v1   (model: {MODEL})")
    console.print(f"Admin API    http://{control.host}:{control.port}/docs")
    console.print(f"Status       .venv/bin/penumbra status -f {CONFIG.relative_to(ROOT)}")
    console.print(f"Stop         .venv/bin/penumbra down -f {CONFIG.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
