"""A comparator as a process, with a control process that a test plays."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from penumbra.monitoring.observations import Pair, Report
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot, Variant, Watch
from penumbra.router.link.messages import Stored, encode, from_gateway, push_of
from penumbra.router.mirror.frame import MirrorFrame, frame
from tests.support.gateway_process import ROOT, free_port

WAIT_SECONDS = 60.0


@dataclass
class Control:
    """The other end of the comparator's link: pushes one table and makes everything durable."""

    snapshot: Snapshot
    reports: list[Report] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        await socket.send(push_of("store", self.snapshot))
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message = from_gateway(text)
                if isinstance(message, Report):
                    await socket.send(encode(Stored(message.process_start_id, message.seq)))
                    async with self.changed:
                        self.reports.append(message)
                        self.changed.notify_all()

    async def until(self, is_true: Callable[["Control"], bool]) -> None:
        """Wait for reports that say so."""
        async with asyncio.timeout(WAIT_SECONDS), self.changed:
            await self.changed.wait_for(lambda: is_true(self))

    @property
    def pairs(self) -> list[Pair]:
        return [pair for report in self.reports for run in report.runs for pair in run.pairs]

    def of_runs(self, name: str) -> list[Any]:
        """One kind of observation of all reports."""
        return [
            item
            for report in self.reports
            for run in report.runs
            for item in (getattr(run, name) or ())
        ]


def table(urls: dict[str, str], *watches: Watch) -> Snapshot:
    """A routing table with the baseline `full` and the other variants watched as said."""
    variants = {name: Variant(url=url) for name, url in urls.items()}
    model = ModelSnapshot(baseline="full", variants=variants, watches=watches)
    return Snapshot(epoch=1, models={"demo": model})


class Process:
    """A comparator that runs.

    Args:
        process: It.
        socket_path: Where gateways hand over.
        port: Its internal port.
        log: Where it writes.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, socket_path: Path, port: int, log: Path
    ) -> None:
        self.process = process
        self.socket_path = socket_path
        self.port = port
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def get(self, path: str) -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{self.port}{path}")).text

    async def until_exported(self, sample: str) -> None:
        """Wait for a line of its metrics: it tells only when it is asked."""
        async with asyncio.timeout(WAIT_SECONDS):
            while sample not in await self.get("/metrics"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def hand_over(self, *requests: MirrorFrame) -> asyncio.StreamWriter:
        """Send frames as a gateway does; the connection stays open."""
        _, writer = await asyncio.open_unix_connection(self.socket_path)
        for request in requests:
            writer.write(frame(request))
        await writer.drain()
        return writer


@contextlib.asynccontextmanager
async def control(snapshot: Snapshot) -> AsyncIterator[tuple[Control, str]]:
    """A played control process and its base URL."""
    played = Control(snapshot)
    server: Server
    async with serve(played.serve, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield played, f"http://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def comparator(folder: Path, control_url: str, **settings: Any) -> AsyncIterator[Process]:
    """A comparator process, ready to take frames; killed at the end if it still runs."""
    started = await start(folder, control_url, **settings)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not all(event in started.log for event in ("frames_awaited", "control_link_up")):
                assert started.process.returncode is None, started.log
                await asyncio.sleep(0.02)
        yield started
    finally:
        if started.process.returncode is None:
            started.process.kill()
            await started.process.wait()


async def start(folder: Path, control_url: str, **settings: Any) -> Process:
    """Start a comparator and wait for nothing; `environment` has more variables of its own."""
    environment = settings.pop("environment", {})
    port = settings.pop("internal_port", None) or free_port()
    token = settings.pop("token", "token")
    socket_path = folder / "shadow.sock"
    told = {
        "control_url": control_url,
        "socket_path": str(socket_path),
        "internal_port": port,
        "niceness": 0,
        **settings,
    }
    file = folder / "shadow.json"
    file.write_text(json.dumps(told))
    log = folder / "shadow.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penumbra.router.shadow",
            "--settings",
            str(file),
            cwd=ROOT,
            env={**os.environ, "PENUMBRA_GATEWAY_TOKEN": token, **environment},
            stdout=output,
            stderr=output,
        )
    return Process(process, socket_path, port, log)
