"""Commands of the demo, given as an operator would: through `penumbra` on the command line."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.demo.traffic import MODEL, TrafficCounts
from penumbra.serve.hosting.plan import app_name
from penumbra.serve.supervisor.folder import StateFolder

# Modules are imported through the links in src/penumbra.
ROOT = Path(__file__).resolve().parents[2]


class DemoFailed(Exception):
    """The demo did not show what it should."""


class Operator:
    """Operator of the demo: gives commands to the installation and prints the results.

    Args:
        console: The terminal to print to.
        spec: The installation.
    """

    def __init__(self, console: Console, spec: PenumbraSpec) -> None:
        self.console = console
        self.folder = StateFolder(spec.state_dir)
        self.url = f"http://{spec.gateway.host}:{spec.gateway.port}"
        self.internal_urls = [
            f"http://127.0.0.1:{spec.gateway.internal_port + index}"
            for index in range(spec.gateway.processes)
        ]
        self._builds_url = f"http://127.0.0.1:{spec.ray.port}"
        self._environment = {
            **os.environ,
            "COLUMNS": str(console.width),
            **self.folder.tokens({}),
            "PENUMBRA_ADMIN_URL": f"http://{spec.control.host}:{spec.control.port}",
        }

    def build_url(self, variant: str) -> str:
        """Base URL of a build itself, past the gateway."""
        return f"{self._builds_url}/{app_name(MODEL, variant)}"

    def say(self, text: str) -> None:
        """Print a line of the story."""
        self.console.print(f"\n[bold yellow]{text}[/]")

    async def give(self, *command: str) -> None:
        """Run a command and print its output.

        Raises:
            DemoFailed: It failed.
        """
        self._echo(command)
        code, output = await self._run(command)
        self.console.print(output.rstrip(), style="cyan", highlight=False, markup=False)
        if code != 0:
            raise DemoFailed(f"`penumbra {' '.join(command)}` failed")

    async def follow(self, *command: str) -> int:
        """Run a command that prints while it runs; returns its exit status."""
        self._echo(command)
        process = await asyncio.create_subprocess_exec(
            *_line(command), cwd=ROOT, env=self._environment
        )
        return await _end_of(process)

    async def ask(self, *command: str) -> Any:
        """Run a command quietly and return its answer as JSON.

        Raises:
            DemoFailed: It failed.
        """
        code, output = await self._run((*command, "--json"))
        if code != 0:
            raise DemoFailed(f"`penumbra {' '.join(command)}` failed: {output}")
        return json.loads(output)

    def report(self, name: str, counts: TrafficCounts) -> None:
        """Print the results that the clients have seen."""
        answered = ", ".join(f"{who} {count}" for who, count in sorted(counts.by_variant.items()))
        self.console.print(
            f"  {name}: {counts.requests} requests, {len(counts.errors)} errors; {answered}"
            + (f"; {counts.failovers} failed over" if counts.failovers else "")
        )

    def _echo(self, command: tuple[str, ...]) -> None:
        words = " ".join(f'"{word}"' if " " in word else word for word in command)
        self.console.print(f"[bold]$ penumbra[/] {words}", highlight=False)

    async def _run(self, command: tuple[str, ...]) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *_line(command),
            cwd=ROOT,
            env=self._environment | {"COLUMNS": str(self.console.width)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()


def require_no_errors(name: str, counts: TrafficCounts) -> None:
    """Check that no client has seen an error.

    Raises:
        DemoFailed: One has.
    """
    if counts.errors:
        raise DemoFailed(
            f"clients saw {len(counts.errors)} errors during: {name}; the first: {counts.errors[0]}"
        )


def _line(command: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "penumbra.serve.cli", *command]


async def _end_of(process: asyncio.subprocess.Process) -> int:
    try:
        return await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
