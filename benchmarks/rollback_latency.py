"""Time of a rollback from the deciding observation to the last gateway, and late candidate answers.

Starts the real control process on a SQLite store, or on a PostgreSQL server of its own, and real
gateway processes under load, with a fake engine behind them. A scripted comparator, on the real
link, lets a candidate go live, then reports pairs that are beyond tolerance; the guard rolls it
back, it is re-armed, and so on:

    python benchmarks/rollback_latency.py [--rollbacks 200] [--gateways 4] [--rate 200] [--postgres]

Every client request is sent and answered through the gateways, so a candidate's answer that began
after the last acknowledgement would be seen. Nothing but loopback is used.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.flag_propagation import (  # noqa: E402 - only now is the root importable
    TOKENS,
    _free_ports,
    _process,
    _quantile,
    print_quantiles,
)
from benchmarks.gateway.build import BUILD, compile_tools  # noqa: E402
from penumbra.monitoring.observations import Pair, Report, Run, RunReport  # noqa: E402
from penumbra.router.link.messages import (  # noqa: E402
    COMPARATOR_PATH,
    Beat,
    EpochApplied,
    Hello,
    Probe,
    Push,
    Stored,
    encode,
    from_control,
)
from tests.support.postgres import find_binaries, postgres_server  # noqa: E402

TARGET_P99_MILLISECONDS = 100.0
START_SECONDS = 60.0
WAIT_SECONDS = 20.0
PAIRS = 40
CONNECTIONS = 16
SETTLE_SECONDS = 0.05
"""Seconds for which requests are watched after each rollback."""
SPEC = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 50],
    "gates": {"pairs": PAIRS, "slice_pairs": PAIRS, "stage_pairs": PAIRS, "stage_seconds": 0},
    "guardrails": [{"signal": "displacement", "tolerance": 0.4, "action": "rollback", "share": 1}],
}


def _now() -> float:
    """Unix seconds."""
    return datetime.now(UTC).timestamp()


@dataclass
class Figures:
    """Measured times, in milliseconds, and counts of answers."""

    to_durable: list[float] = field(default_factory=list)
    to_acknowledged: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    answers: int = 0
    live: int = 0
    """Answers by the candidate."""
    late: int = 0
    """Candidate answers to requests that were sent after the last acknowledgement."""
    errors: int = 0
    counted_late: int = 0
    """Candidate answers that, as the gateways count them, began after a rollback was in force."""


class Comparator:
    """A comparator whose observations the benchmark chooses."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._seq = itertools.count(1)
        self.table: Any = None
        self._changed = asyncio.Condition()
        self._stored = 0

    async def listen(self) -> None:
        """Answer probes, and follow the tables."""
        hello = Hello("bench-comparator", os.getpid(), "", 0, platform.node())
        await self._socket.send(encode(hello))
        async for text in self._socket:
            match from_control(text):
                case Probe(nonce=nonce):
                    await self._socket.send(encode(Beat(nonce)))
                case Push() as push:
                    self.table = push.table()
                    await self._socket.send(encode(EpochApplied(self.table.epoch)))
                case Stored(seq=seq):
                    self._stored = seq
                case _:
                    raise SystemExit(f"the control process said {text!r} to a comparator")
            async with self._changed:
                self._changed.notify_all()

    async def until(self, is_so: Any) -> None:
        """Wait for a table whose model meets a condition."""
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.table is not None and is_so(self.demo))

    @property
    def demo(self) -> Any:
        """The model's part of the newest table."""
        return self.table.models["demo"]

    async def observe(self, displacement: float) -> None:
        """Report pairs of this displacement, observed now."""
        run = Run("demo", "int8", self.demo.watches[0].run)
        now = _now()
        pairs = tuple(
            Pair(f"r{n}", "other", n, displacement=displacement, at=now)
            for n in itertools.islice(self._numbers, PAIRS)
        )
        seq = next(self._seq)
        await self._socket.send(
            encode(Report("bench", f"{os.getpid()}", seq, (RunReport(run, pairs=pairs),)))
        )
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            await self._changed.wait_for(lambda: self._stored >= seq)


class Load:
    """Clients that ask at an even rate, and record the variant that answered each request."""

    def __init__(self, port: int, rate: float) -> None:
        self._port = port
        self._gap = CONNECTIONS / rate
        self.asked: list[tuple[float, str]] = []
        """(when it was sent, variant), of the requests since the last `take`."""
        self.errors = 0
        self._answered = asyncio.Condition()

    async def has_live(self, count: int) -> None:
        """Wait for this many answers of the candidate since the last `take`."""
        async with self._answered:
            await self._answered.wait_for(
                lambda: sum(variant == "int8" for _, variant in self.asked) >= count
            )

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(self._client(number))

    def take(self) -> list[tuple[float, str]]:
        """Take the requests since the last call."""
        asked, self.asked = self.asked, []
        return asked

    async def _client(self, number: int) -> None:
        await asyncio.sleep(number * self._gap / CONNECTIONS)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for turn in itertools.count():
            prompt = f"{number}-{turn}"
            body = json.dumps(
                {"model": "demo", "user": prompt, "messages": [{"role": "user", "content": prompt}]}
            ).encode()
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nhost: b\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            sent_at = _now()
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            fields = dict(line.split(": ", 1) for line in answer.split("\r\n")[1:] if ": " in line)
            await reader.readexactly(int(fields["content-length"]))
            self.errors += " 200 " not in answer.split("\r\n", 1)[0]
            self.asked.append((sent_at, fields.get("x-penumbra-variant", "")))
            async with self._answered:
                self._answered.notify_all()
            await asyncio.sleep(max(0.0, self._gap - (_now() - sent_at)))


class Admin:
    """Client of the admin API."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str) -> Any:
        """Get a path; returns the body."""
        answer = await self._client.get(path)
        answer.raise_for_status()
        return answer.json()

    async def apply(self) -> None:
        """Start the rollout."""
        answer = await self._client.put("/rollouts", json={"spec": SPEC, "reason": "measuring"})
        answer.raise_for_status()

    async def rearm(self) -> None:
        """Re-arm the rollout."""
        answer = await self._client.post(
            "/rollouts/int8/rearm", params={"model": "demo"}, json={"reason": "measuring"}
        )
        answer.raise_for_status()

    async def last_rollback(self, after: int) -> dict[str, Any]:
        """The times of the rollback after an epoch, once every gateway has acknowledged."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                view = await self.get("/rollouts/int8?model=demo")
                last = view["last_rollback"]
                if last and last["epoch"] > after and last["gateways"]:
                    if last["durable_to_acknowledged_ms"] is None:
                        raise SystemExit(f"not every gateway acknowledged epoch {last['epoch']}")
                    return dict(last)
                await asyncio.sleep(0.005)


async def measure(admin: Admin, comparator: Comparator, load: Load, rollbacks: int) -> Figures:
    """Roll back repeatedly, and measure each rollback."""
    figures = Figures()
    epoch = 0
    await admin.apply()
    for number in range(rollbacks):
        await comparator.until(lambda demo: demo.watches and not demo.flag.blocked)
        await comparator.observe(0.0)
        await comparator.until(lambda demo: demo.flag.split.get("int8") == 50)
        await _await_live(load, figures)
        await comparator.observe(1.0)
        last = await admin.last_rollback(epoch)
        epoch = last["epoch"]
        await asyncio.sleep(SETTLE_SECONDS)
        _count(load, figures, _acknowledged_at(last))
        figures.to_durable.append(last["observed_to_durable_ms"])
        figures.to_acknowledged.append(last["durable_to_acknowledged_ms"])
        figures.whole.append(figures.to_durable[-1] + figures.to_acknowledged[-1])
        if number + 1 < rollbacks:
            await admin.rearm()
    return figures


async def _await_live(load: Load, figures: Figures) -> None:
    """Wait until clients get at least five new answers of the candidate."""
    _count(load, figures, float("inf"))
    async with asyncio.timeout(WAIT_SECONDS):
        await load.has_live(5)


def _acknowledged_at(last: dict[str, Any]) -> float:
    """Time of the last gateway's acknowledgement; Unix seconds."""
    observed = datetime.fromisoformat(last["observed_at"]).timestamp()
    took: float = last["observed_to_durable_ms"] + last["durable_to_acknowledged_ms"]
    return observed + took / 1000


def _count(load: Load, figures: Figures, acknowledged_at: float) -> None:
    asked = load.take()
    figures.answers += len(asked)
    figures.live += sum(variant == "int8" for _, variant in asked)
    figures.late += sum(variant == "int8" and at > acknowledged_at for at, variant in asked)
    figures.errors, load.errors = figures.errors + load.errors, 0


@contextlib.asynccontextmanager
async def installation(
    folder: Path, gateways: int, store: str | None
) -> AsyncIterator[tuple[str, int, list[int]]]:
    """Start all processes; yields the control process's address and the gateways' ports."""
    compile_tools()
    port, public, full, int8, *internal = _free_ports(4 + gateways)
    url = f"http://127.0.0.1:{port}"
    model = {
        "baseline": "full",
        "variants": {
            "full": {"url": f"http://127.0.0.1:{full}"},
            "int8": {"url": f"http://127.0.0.1:{int8}"},
        },
    }
    config = folder / "penumbra.yaml"
    # JSON is YAML.
    control = {"port": port, "acknowledge_seconds": WAIT_SECONDS, "store": store}
    config.write_text(json.dumps({"models": {"demo": model}, "control": control}))
    commands = [
        [str(BUILD / "upstream"), "8", str(full), str(int8)],
        [sys.executable, "-m", "penumbra.deployments", "--config", str(config)],
    ]
    for number, internal_port in enumerate(internal):
        settings = folder / f"gateway-{number}.json"
        fields = {
            "port": public,
            "internal_port": internal_port,
            "gateway_id": f"gateway-{number}",
            "processes": gateways,
            "control_url": url,
            "snapshot": {"epoch": 0, "models": {"demo": model}},
        }
        settings.write_text(json.dumps(fields))
        commands.append([sys.executable, "-m", "penumbra.router", "--settings", str(settings)])
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            stack.enter_context(_process(command, folder / f"{number}.log", TOKENS))
        yield url, public, internal


async def run(rollbacks: int, gateways: int, rate: float, store: str | None) -> Figures:
    """Start all processes, measure, and stop them."""
    headers = {"authorization": f"Bearer {TOKENS['PENUMBRA_ADMIN_TOKEN']}"}
    token = {"authorization": f"Bearer {TOKENS['PENUMBRA_GATEWAY_TOKEN']}"}
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url, public, internal = await stack.enter_async_context(
            installation(Path(folder), gateways, store)
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"{url}/admin/v1", headers=headers, timeout=WAIT_SECONDS)
        )
        admin = Admin(client)
        await _await_gateways(admin, gateways)
        socket = await stack.enter_async_context(
            connect(
                f"{url.replace('http', 'ws')}{COMPARATOR_PATH}",
                additional_headers=token,
                compression=None,
            )
        )
        comparator, load = Comparator(socket), Load(public, rate)
        tasks = [asyncio.create_task(comparator.listen()), asyncio.create_task(load.run())]
        try:
            figures = await measure(admin, comparator, load, rollbacks)
            figures.counted_late = await _counted_late(internal)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return figures


async def _counted_late(internal: list[int]) -> int:
    total = 0.0
    async with httpx.AsyncClient() as client:
        for port in internal:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            lines = [
                line
                for line in text.splitlines()
                if line.startswith("penumbra_post_rollback_candidate_starts_total{")
            ]
            total += sum(float(line.split()[-1]) for line in lines)
            if not lines:
                raise SystemExit("a gateway does not count the starts after a rollback")
    return int(total)


async def _await_gateways(admin: Admin, count: int) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if len((await admin.get("/gateways"))["gateways"]) == count:
                    return
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def postgres_store() -> Iterator[str]:
    """Run a PostgreSQL server; yields the store's URL."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL is not installed: apt-get install postgresql")
    with postgres_server(binaries) as server:
        yield server.url


def report(figures: Figures, gateways: int, rate: float, store: str) -> None:
    """Print a Markdown table."""
    rows = {
        "deciding observation → durable rollback": figures.to_durable,
        "durable rollback → last acknowledgement": figures.to_acknowledged,
        "**deciding observation → last acknowledgement**": figures.whole,
    }
    print(
        f"{len(figures.whole)} rollbacks, {gateways} gateway processes under {rate:g} requests/s,"
        f" {store}, Python {platform.python_version()}, {os.cpu_count()} cores,"
        f" load average {os.getloadavg()[0]:.1f}; milliseconds\n"
    )
    print_quantiles(rows)
    print(
        f"\n{figures.answers} answers, {figures.live} of them the candidate's, {figures.errors}"
        f" errors. Candidate answers to requests sent after the last acknowledgement:"
        f" {figures.late}; started after a gateway had the rollback in force, by its own count:"
        f" {figures.counted_late}."
    )


def main() -> int:
    """Measure, print, and say by the exit status whether the targets were met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollbacks", type=int, default=200)
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--postgres", action="store_true", help="on a server of its own")
    arguments = parser.parse_args()
    sizes = arguments.rollbacks, arguments.gateways, arguments.rate
    with postgres_store() if arguments.postgres else contextlib.nullcontext(None) as store:
        figures = asyncio.run(run(*sizes, store))
    report(figures, *sizes[1:], "PostgreSQL" if arguments.postgres else "SQLite (synchronous=FULL)")
    is_fast = _quantile(figures.whole, 0.99) < TARGET_P99_MILLISECONDS
    return 0 if is_fast and not figures.late and not figures.counted_late else 1


if __name__ == "__main__":
    sys.exit(main())
