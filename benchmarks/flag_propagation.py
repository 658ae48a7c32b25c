"""Time that a flag takes from the durable commit to the last gateway.

Starts the real control process on a SQLite store and real gateway processes, changes one flag again
and again, one change at a time, and prints a Markdown table:

    python benchmarks/flag_propagation.py [--changes 300] [--gateways 4]

No traffic flows through the gateways; nothing but loopback is used.
"""

import argparse
import contextlib
import json
import os
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
WARM_UP_CHANGES = 20
START_SECONDS = 60.0
TARGET_P99_MILLISECONDS = 50.0
TOKENS = {f"PENUMBRA_{role}_TOKEN": secrets.token_urlsafe(24) for role in ("ADMIN", "GATEWAY")}
FULL, INT8 = "http://127.0.0.1:9", "http://127.0.0.1:10"


@dataclass
class Figures:
    """Measured times, in milliseconds."""

    commit: list[float] = field(default_factory=list)
    propagation: list[float] = field(default_factory=list)
    put: list[float] = field(default_factory=list)


def main() -> int:
    """Measure and print; the exit status is 0 if the target was met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--gateways", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        url = stack.enter_context(_installation(Path(name), arguments.gateways))
        client = stack.enter_context(
            httpx.Client(
                base_url=f"{url}/admin/v1",
                headers={"authorization": f"Bearer {TOKENS['PENUMBRA_ADMIN_TOKEN']}"},
                timeout=30.0,
            )
        )
        _await_gateways(client, arguments.gateways)
        _change(client, WARM_UP_CHANGES, arguments.gateways)
        figures = _change(client, arguments.changes, arguments.gateways)
    _report(figures, arguments.gateways)
    return 0 if _quantile(figures.propagation, 0.99) < TARGET_P99_MILLISECONDS else 1


def _change(client: httpx.Client, count: int, gateways: int) -> Figures:
    figures = Figures()
    epoch = client.get("/flags/demo").json()["epoch"]
    for number in range(count):
        body = {
            "flag": {"split": {"int8": (epoch + number) % 10_000 / 100}},
            "reason": "measuring",
        }
        began = time.perf_counter()
        response = client.put("/flags/demo", json=body, headers={"if-match": str(epoch)})
        took = time.perf_counter() - began
        response.raise_for_status()
        answer = response.json()
        if answer["gateways"] != {"connected": gateways, "acknowledged": gateways}:
            raise SystemExit(f"epoch {answer['epoch']} reached only {answer['gateways']}")
        epoch = answer["epoch"]
        figures.commit.append(answer["durable_ms"])
        figures.propagation.append(answer["propagation_ms"])
        figures.put.append(took * 1000)
    return figures


def _report(figures: Figures, gateways: int) -> None:
    rows = {
        "request received → durable commit": figures.commit,
        "**durable commit → last acknowledgement**": figures.propagation,
        "the whole PUT, as the client sees it": figures.put,
    }
    load = os.getloadavg()[0]
    print(
        f"{len(figures.put)} changes, {gateways} gateway processes, SQLite (synchronous=FULL),"
        f" Python {platform.python_version()}, {os.cpu_count()} cores,"
        f" load average {load:.1f}; milliseconds\n"
    )
    print_quantiles(rows)


def print_quantiles(rows: dict[str, list[float]]) -> None:
    """Print quantiles of named values as a Markdown table."""
    print("| | p50 | p90 | p99 | max |\n|---|---|---|---|---|")
    for name, values in rows.items():
        cells = [_quantile(values, q) for q in (0.5, 0.9, 0.99, 1.0)]
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")


def _quantile(values: list[float], quantile: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


@contextlib.contextmanager
def _installation(folder: Path, gateways: int) -> Iterator[str]:
    """Run the control process and the gateways; yields the control process's address."""
    port, public, *internal = _free_ports(2 + gateways)
    url = f"http://127.0.0.1:{port}"
    model = {"baseline": "full", "variants": {"full": {"url": FULL}, "int8": {"url": INT8}}}
    config = folder / "penumbra.yaml"
    # JSON is YAML.
    config.write_text(json.dumps({"models": {"demo": model}, "control": {"port": port}}))
    commands = [[sys.executable, "-m", "penumbra.deployments", "--config", str(config)]]
    for number, internal_port in enumerate(internal):
        settings = folder / f"gateway-{number}.json"
        settings.write_text(
            json.dumps(
                {
                    "port": public,
                    "internal_port": internal_port,
                    "gateway_id": f"gateway-{number}",
                    "processes": gateways,
                    "control_url": url,
                    "snapshot": {"epoch": 0, "models": {"demo": model}},
                }
            )
        )
        commands.append([sys.executable, "-m", "penumbra.router", "--settings", str(settings)])
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            stack.enter_context(_process(command, folder / f"{number}.log", TOKENS))
        yield url


@contextlib.contextmanager
def _process(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_gateways(client: httpx.Client, count: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    found: list[Any] = []
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            found = client.get("/gateways").json()["gateways"]
            if len(found) == count:
                return
        time.sleep(0.05)
    raise SystemExit(f"{len(found)} of {count} gateways connected within {START_SECONDS:g} s")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


if __name__ == "__main__":
    sys.exit(main())
