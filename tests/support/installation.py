"""Runs `penumbra up` as an operator does: a configuration in, a state file out."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from penumbra.serve.errors import NotRunning
from penumbra.serve.supervisor.state import RunState, read_state
from tests.support.gateway_process import free_port

POLL_SECONDS = 0.05


class Installation:
    """One `penumbra up` with ports of its own.

    Args:
        models: The configuration's `models`.
        folder: For the configuration, the state and the logs.
        processes: Gateway processes.
        settings: Other top-level settings.
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        folder: Path,
        processes: int = 1,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.config = folder / "penumbra.yaml"
        self.output = folder / "up.out"
        self.port = free_port()
        internal = free_port(in_a_row=processes)
        spec = {
            "state_dir": str(self.state_dir),
            "models": models,
            "gateway": {"port": self.port, "processes": processes, "internal_port": internal},
            "control": {"port": free_port()},
            "shadow": {"internal_port": free_port()},
            "ray": {"port": free_port()},
            **(settings or {}),
        }
        self.config.write_text(yaml.safe_dump(spec, sort_keys=False))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def state(self) -> RunState:
        """The state file as it is now."""
        return read_state(self.state_dir / "state.json")

    @property
    def gateway_url(self) -> str:
        return self.state.gateway_url

    @property
    def admin_token(self) -> str:
        return (self.state_dir / "admin-token").read_text().strip()

    def variant_url(self, variant: str) -> str:
        return next(record.url for record in self.state.variants if record.variant == variant)

    def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command("up", "--plain"),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait_until_ready(self, seconds: float) -> None:
        self.wait_for(lambda state: state.is_ready, seconds)

    def wait_for(self, condition: Any, seconds: float) -> RunState:
        """Wait until the state is as wanted; fails with the output when the process ends."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                state = self.state
            except NotRunning:
                state = None
            if state is not None and condition(state):
                return state
            if self.process.poll() is not None:
                raise AssertionError(f"`penumbra up` ended:\n{self.output.read_text()}")
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"not within {seconds} s:\n{self.output.read_text()}")

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def processes(self) -> list[psutil.Process]:
        """`penumbra up` and all its descendants."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def run(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Another `penumbra` command on the same configuration."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=seconds, check=False
        )

    def command(self, name: str, *arguments: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "penumbra.serve.cli",
            name,
            "-f",
            str(self.config),
            *arguments,
        ]


def still_running(processes: list[psutil.Process], seconds: float) -> list[str]:
    """The processes that still run after a time in seconds; returns at once when all are gone."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [f"{process.pid} {' '.join(process.cmdline())[:100]}" for process in alive]
