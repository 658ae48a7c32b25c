"""Measures the cost of shadowing for the clients and the gateway, in turns, in one run.

    python -m benchmarks.shadow_primary [--rounds 6] [--seconds 5] [--budget 30]

Three real gateway processes stand in front of the same two fake engines. `off` mirrors nothing;
`on` mirrors every request to the real comparator, and asks for token ids; `decode` asks for the
log-probabilities of the decoding as well. Rounds alternate between them, in changing order, so that
all see the same machine. Processor time is that of the gateway's process, for each token that
clients got. `spare`: requests arrive at 40 % of the engine's capacity. `saturated`: three
clients for each place in the engine's batch. It also times what a tap costs by itself.

Scores are work of the same engine: they lengthen the steps of the requests beside them, within the
comparator's budget. `--budget 0.001` lets it score nothing, and shows what mirroring alone costs.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import uvloop
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.gateway.targets import free_port
from benchmarks.shadow.engine import PREFILL_SECONDS, STEP_SECONDS, TOKENS
from penumbra.router.mirror.frame import MirrorFrame, frame
from penumbra.router.mirror.token_tap import TokenTap, tap_body
from penumbra.router.upstream.port import UpstreamRequest

ROOT = Path(__file__).parents[1]
SLOTS = 16
CAPACITY = SLOTS / (TOKENS * STEP_SECONDS + SLOTS * PREFILL_SECONDS)
"""Requests a second that the engine can answer, roughly: its steps are also prefills."""
_WARMUP_SECONDS = 1.0


@dataclass
class Window:
    """Latencies and throughput of one round, as the clients saw them."""

    first: list[float]
    """Seconds from the request sent to the first byte of its answer's body."""
    whole: list[float]
    errors: int
    seconds: float
    requests: int = 0
    """All of them, those of the warm-up included."""

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.whole) / self.seconds


KINDS = {"off": (0.0, 0.0), "on": (1.0, 0.0), "decode": (1.0, 1.0)}
"""Gateway -> shares of its requests that are mirrored, and whose decoding is read."""


class Load:
    """Streaming clients on keep-alive connections."""

    def __init__(self, port: int, seed: str) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.window = Window([], [], 0, 0.0)
        self._counts_from = 0.0

    async def one(self) -> None:
        """One request, timed."""
        text = f"Question {self._random.getrandbits(48):x}: which of these is the largest?"
        body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": text}]}
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: b\r\ncontent-length: {len(data)}\r\n"
        began = time.perf_counter()
        reader, writer = await self._connection()
        writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + data)
        answered = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"\n\n")
        first = time.perf_counter()
        rest = await reader.readuntil(b"\r\n0\r\n\r\n")
        ended = time.perf_counter()
        self._idle.append((reader, writer))
        self.window.requests += 1
        if began < self._counts_from:
            return
        self.window.first.append(first - began)
        self.window.whole.append(ended - began)
        is_right = answered.startswith(b"HTTP/1.1 200") and rest.count(b" word") == TOKENS
        is_stripped = b'token_ids":[' not in rest and b'logprobs":{' not in rest
        self.window.errors += not (is_right and is_stripped)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._idle:
            return self._idle.pop()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def arriving(self, rate: float, seconds: float) -> Window:
        """Requests that arrive at random, so many a second."""
        end = self._begin(seconds)
        async with asyncio.TaskGroup() as group:
            due = time.perf_counter()
            while due < end:
                due += self._random.expovariate(rate)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self.one())
        return self.window

    async def steady(self, clients: int, seconds: float) -> Window:
        """So many clients, each with its next request when its answer is complete."""
        end = self._begin(seconds)

        async def client() -> None:
            while time.perf_counter() < end:
                await self.one()

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
        return self.window

    def _begin(self, seconds: float) -> float:
        self._counts_from = time.perf_counter() + _WARMUP_SECONDS
        self.window.seconds = seconds
        return self._counts_from + seconds


async def _window(scenario: str, port: int, seconds: float, seed: str) -> Window:
    load = Load(port, seed)
    if scenario == "spare":
        return await load.arriving(0.4 * CAPACITY, seconds)
    return await load.steady(3 * SLOTS, seconds)


# The processes


@contextmanager
def _process(*arguments: str, log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"{arguments[0]} ended: {log.read_text()[-1000:]}")
    finally:
        process.terminate()
        process.wait(10)


def _samples(port: int) -> dict[str, float]:
    """The metrics of a process, by name and label values."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _wait_for(port: int, name: str | None = None) -> None:
    """Wait until a process answers, and a metric of it is 1."""
    for _ in range(200):
        try:
            samples = _samples(port)
            if name is None or samples.get(name) == 1:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"port {port} is not ready ({name})")


class Stage:
    """Two engines, a comparator, and the gateways with shadow off and on."""

    def __init__(self, folder: Path, budget: float) -> None:
        self._folder = folder
        self._budget = budget
        self.ports = {name: free_port() for name in KINDS}
        self.internal = {name: free_port() for name in (*KINDS, "comparator")}
        self.pids: dict[str, int] = {}
        self._engines = (free_port(), free_port())

    @contextmanager
    def running(self) -> Iterator[None]:
        """All of it, for the time of the block."""
        with ExitStack() as stack:
            for port in self._engines:
                log = self._folder / f"engine-{port}.log"
                module = "benchmarks.shadow.engine"
                stack.enter_context(_process(module, str(port), str(SLOTS), log=log))
            snapshot = self._write("snapshot", self._snapshot(1.0, 1.0))
            shadow = {
                "control_url": "http://127.0.0.1:1",
                "socket_path": str(self._folder / "shadow.sock"),
                "internal_port": self.internal["comparator"],
                "headroom": {"running": SLOTS - 4},
                "budget": {"engine_seconds_per_minute": self._budget},
            }
            files = (str(self._write("shadow", shadow)), str(snapshot))
            log = self._folder / "comparator.log"
            stack.enter_context(_process("benchmarks.shadow.comparator", *files, log=log))
            for name, rates in KINDS.items():
                settings = {
                    "port": self.ports[name],
                    "internal_port": self.internal[name],
                    "shadow_socket": shadow["socket_path"],
                    "snapshot": self._snapshot(*rates),
                }
                file = str(self._write(name, settings))
                log = self._folder / f"{name}.log"
                gateway = _process("penumbra.router", "--settings", file, log=log)
                self.pids[name] = stack.enter_context(gateway)
            for name in KINDS:
                _wait_for(self.internal[name], "penumbra_comparator_connected")
            _wait_for(self.internal["comparator"])
            yield

    def _snapshot(self, rate: float, generate: float) -> dict[str, Any]:
        rates = {"mirror": rate, "generate": generate, "aa": 0.0}
        watch = {"candidate": "int8", "run": "bench", **rates}
        full, int8 = self._engines
        model = {
            "baseline": "full",
            "variants": {
                "full": {"url": f"http://127.0.0.1:{full}"},
                "int8": {"url": f"http://127.0.0.1:{int8}"},
            },
            "watches": [watch],
        }
        return {"epoch": 1, "models": {"demo": model}}

    def _write(self, name: str, value: object) -> Path:
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(value))
        return path


# What comes out


def _figures(window: Window, cpu_seconds: float) -> dict[str, float]:
    cuts = quantiles(window.first, n=100)
    return {
        "ttft p50 ms": 1e3 * cuts[49],
        "ttft p99 ms": 1e3 * cuts[98],
        "answers/s": window.per_second,
        "gateway CPU, µs a token": 1e6 * cpu_seconds / (TOKENS * window.requests),
    }


def _cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _table(rounds: list[dict[str, dict[str, float]]]) -> Iterator[str]:
    others = [name for name in KINDS if name != "off"]
    yield (
        "| figure | off | "
        + " | ".join(f"{name} | change, median (range)" for name in others)
        + " |"
    )
    yield "|---" * (2 + 2 * len(others)) + "|"
    for name in rounds[0]["off"]:
        off = [each["off"][name] for each in rounds]
        cells = [f"{median(off):.2f}"]
        for other in others:
            on = [each[other][name] for each in rounds]
            changes = sorted(100 * (b / a - 1) for a, b in zip(off, on, strict=True))
            spread = f"{median(changes):+.1f} % ({changes[0]:+.1f} to {changes[-1]:+.1f})"
            cells += [f"{median(on):.2f}", spread]
        yield f"| {name} | {' | '.join(cells)} |"


def _tap_costs() -> Iterator[str]:
    """What a tap costs the gateway's own thread."""
    messages = [{"role": "user", "content": "Which of these is the largest, and why? " * 8}]
    body = json.dumps({"model": "demo", "stream": True, "messages": messages}).encode()
    tapped = tap_body(body)
    if tapped is None:
        raise RuntimeError("the request cannot be tapped")
    choice = '{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null'
    head = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"demo"'
    event = f'data: {head},"choices":[{choice},"token_ids":[1234]}}]}}\n\n'.encode()
    request = UpstreamRequest(b"/v1/chat/completions", b"", body)
    tap = TokenTap(request, tapped, limit_bytes=1 << 40)
    mirrored = MirrorFrame(
        "r", "demo", "full", ("int8",), "other", 1, "/v1/chat/completions", 1, 0, body,
        True, event * 128, 0.0, 0.0, 0.0,
    )  # fmt: skip
    asking = _micros(lambda: tap_body(body))
    yield f"- asking for token ids, {len(body)} bytes: {asking:.2f} µs a request"
    yield f"- keeping and stripping an event: {_micros(lambda: tap.feed(event)):.2f} µs a token"
    encoding = _micros(lambda: frame(mirrored))
    yield f"- encoding a frame of 128 tokens, after the answer: {encoding:.2f} µs a request"


def _micros(call: Any, count: int = 20_000) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            call()
        times.append(time.perf_counter() - began)
    return min(times) / count * 1e6


def _compared(stage: Stage) -> dict[str, float]:
    samples = _samples(stage.internal["comparator"])
    return {name: value for name, value in samples.items() if "_total" in name}


def _run(stage: Stage, scenario: str, rounds: int, seconds: float) -> Iterator[str]:
    found: list[dict[str, dict[str, float]]] = []
    errors = 0
    before = _compared(stage)
    for number in range(rounds):
        figures = {}
        order = list(KINDS)[number % len(KINDS) :] + list(KINDS)[: number % len(KINDS)]
        for name in order:
            # No prompt comes twice: the comparator bets once on each.
            seed = f"{scenario} {number} {name}"
            used = _cpu_seconds(stage.pids[name])
            window = uvloop.run(_window(scenario, stage.ports[name], seconds, seed))
            errors += window.errors
            figures[name] = _figures(window, _cpu_seconds(stage.pids[name]) - used)
        found.append(figures)
    yield f"\n### {scenario}, {rounds} rounds of {seconds:g} s each way, {errors} wrong answers\n"
    yield from _table(found)
    after = _compared(stage)
    news = {name: after[name] - before.get(name, 0) for name in after}
    told = ", ".join(f"{name} {value:g}" for name, value in news.items() if value)
    yield f"\nThe comparator meanwhile: {told or 'nothing'}"


def main() -> None:
    """Run it, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--budget", type=float, default=30.0, help="engine seconds a minute")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [f"Load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.", "", *_tap_costs()]
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), arguments.budget)
        with stage.running():
            for scenario in ("spare", "saturated"):
                lines += _run(stage, scenario, arguments.rounds, arguments.seconds)
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
