"""Store and memory of a control process while a run goes on and on.

Run: `python -m benchmarks.retained_history [--hours 24] [--rate 20] [--days 0.1]`. As many reports
as comparators send in that time, at that rate, are taken one after another by the shipped service
on a SQLite store, each with one pair of a prompt of its own and one count; the clock goes faster
than time. Reports are kept for `--days`. Prints, for each hour, the store, the memory, and
how long a start takes, as Markdown. A day takes about an hour. Checkpoints are written every ten
minutes of that clock, not every minute.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from benchmarks.history_cost import begin
from penumbra.deployments.control import checkpoints
from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.retention import Lifetimes
from penumbra.deployments.control.rollout_service import RolloutService
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import Counts, Pair, Report, Run, RunReport, Signal
from tests.support.control_plane import lead

_AT_ONCE = 200
_MINUTE = 60


class FastProcess:
    """A control process without sockets, whose clock the benchmark moves."""

    def __init__(self, url: str, days: float) -> None:
        self.store = lead(Store(url))
        self.now = datetime.now(UTC)
        clocks = Clocks(lambda: self.now, time.monotonic)
        publisher = Publisher(self.store.identity, time.monotonic)
        self.controller = Controller(self.store, publisher, clocks, 1.0)
        self.controller.checkpoint_key = b"a key of the benchmark"
        lifetimes = Lifetimes(report_days=days)
        self.rollouts = RolloutService(self.controller, clocks, 1.0, "life", lifetimes)

    async def start(self) -> float:
        """Read the store, as a start does; returns the seconds that it took."""
        began = time.perf_counter()
        await self.controller.follow()
        await self.rollouts.start()
        return time.perf_counter() - began

    async def close(self) -> None:
        """End it."""
        await self.rollouts.close()
        self.controller.close()


def _report(number: int, run: str, at: float) -> Report:
    pair = Pair(
        f"r{number}",
        "other",
        number,
        displacement=0.01,
        harm=0,
        tokens=60,
        at=at,
        answered_by="full",
        prompt_tokens=200,
        script="latin",
    )
    counts = Counts("other", Signal.FAILURE, 5, 0)
    own = RunReport(Run("demo", "int8", run), (pair,), (counts,))
    return Report("comparator-0@one", "p1", number, (own,))


async def _minute(process: FastProcess, run: str, first: int, count: int) -> None:
    at = process.now.timestamp()
    numbers = range(first, first + count)
    for begin_at in range(0, count, _AT_ONCE):
        some = numbers[begin_at : begin_at + _AT_ONCE]
        reports = [_report(number, run, at + number / count) for number in some]
        await asyncio.gather(*map(process.rollouts.take_report, reports))
    process.now += timedelta(seconds=_MINUTE)
    await process.rollouts.decide_pending()
    for _ in range(2 + count // 1000):
        await process.rollouts.keep_house()


def _start_anew(url: str, days: float) -> tuple[float, int]:
    """Read the store in a process of its own; returns the seconds, and the pairs that it found."""
    command = [sys.executable, "-m", "benchmarks.retained_history", "--start", url]
    command += ["--days", str(days)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took, pairs = done.stdout.split()
    return float(took), int(pairs)


async def _print_start(url: str, days: float) -> None:
    process = FastProcess(url, days)
    took = await process.start()
    rollout = process.rollouts.rollout(("demo", "int8"))
    found = process.rollouts.evidence_book.evidence(rollout)
    print(took, sum(found.pairs.values()))
    await process.close()


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


async def _measure(folder: Path, hours: int, rate: float, days: float) -> None:
    url = f"sqlite:///{folder / 'store.db'}"
    run = await begin(url)
    process = FastProcess(url, days)
    await process.start()
    count = round(rate * _MINUTE)
    print("| hours | reports | store, MB | memory, MB | start, s | seconds |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    began = time.perf_counter()
    for hour in range(1, hours + 1):
        for minute in range(_MINUTE):
            first = 1 + ((hour - 1) * _MINUTE + minute) * count
            await _minute(process, run, first, count)
        memory = psutil.Process(os.getpid()).memory_info().rss / 1e6
        took, pairs = await asyncio.to_thread(_start_anew, url, days)
        if pairs != hour * _MINUTE * count:
            raise SystemExit(f"found {pairs} pairs after {hour} hours")
        lead(process.store)
        spent = time.perf_counter() - began
        told = (hour, f"{hour * _MINUTE * count:,}", f"{_megabytes(folder):.0f}")
        print(
            f"| {' | '.join(map(str, told))} | {memory:.0f} | {took:.2f} | {spent:.0f} |",
            flush=True,
        )
    await process.close()


def main() -> None:
    """Run it, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--rate", type=float, default=20.0, help="reports a second")
    parser.add_argument("--days", type=float, default=0.1, help="control.report_days")
    parser.add_argument("--start", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        asyncio.run(_print_start(given.start, given.days))
        return
    checkpoints.SECONDS = 600.0
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), given.hours, given.rate, given.days))


if __name__ == "__main__":
    main()
