"""Cost of history: starts, the way back after a failed commit, and pruning, by length of history.

Run: `python -m benchmarks.history_cost [--sizes 10000,100000,1000000]`. For each size a store is
filled with as many events (changes of a flag) and as many reports of one run, each with one pair
and one count; then it is read as a control process reads it, with checkpoints and without. Prints
Markdown. A million of both takes 1 GB of disk and a quarter of an hour.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from penumbra.deployments.control import checkpoints
from penumbra.deployments.control.controller import Clocks, Controller
from penumbra.deployments.control.rollout_service import PRUNED_AT_ONCE, RolloutService
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.events import Draft, Event, FlagPayload, Kind
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import Counts, Pair, Report, Run, RunReport, Signal
from tests.support.control_plane import lead, payload

_BATCH = 5_000
_START = 1_767_000_000.0
_SPEC = RolloutSpec(model="demo", candidate="int8")


class Process:
    """One life of a control process over a store, without sockets."""

    def __init__(self, url: str) -> None:
        self.store = lead(Store(url))
        self.ahead = timedelta(0)
        clocks = Clocks(lambda: datetime.now(UTC) + self.ahead, time.monotonic)
        publisher = Publisher(self.store.identity, time.monotonic)
        self.controller = Controller(self.store, publisher, clocks, 1.0)
        self.controller.checkpoint_key = b"a key of the benchmark"
        self.rollouts = RolloutService(self.controller, clocks, 1.0, "life")

    async def start(self) -> None:
        """Read the store, as a start does."""
        await self.controller.follow()
        await self.rollouts.start()

    async def close(self) -> None:
        """End it."""
        await self.rollouts.close()
        self.controller.close()


async def begin(url: str) -> str:
    """Make a store with one rollout in shadow; returns its run."""
    process = Process(url)
    await process.start()
    await process.controller.configure(payload(), "configuration")
    state, now = process.controller.state, datetime.now(UTC)
    await process.rollouts.put(
        lambda: operator_actions.apply(state, _SPEC, "try", now, "run"), "ann", "try"
    )
    run = process.rollouts.rollout(("demo", "int8")).record.run
    await process.close()
    return run


def _fill(file: Path, run: str, count: int) -> None:
    store = Store(f"sqlite:///{file}")
    last = store.events()[-1]
    flag = store.events()[0].payload.models["demo"].flag  # type: ignore[union-attr]
    now = datetime.now(UTC)

    def event(number: int) -> dict[str, Any]:
        before = flag.model_copy(update={"killed": bool(number % 2)})
        change = FlagPayload(
            before=before, after=flag.model_copy(update={"killed": not number % 2})
        )
        draft = Draft(
            kind=Kind.KILL, actor="ann", reason="to and fro", model="demo", payload=change
        )
        columns, text = Event.of(draft, last.epoch + 1 + number, now).columns()
        return {**columns, "payload": text}

    def report(number: int) -> dict[str, Any]:
        pair = Pair(
            f"r{number}",
            "other",
            number + 1,
            displacement=0.01,
            harm=0,
            tokens=60,
            at=_START + number / 20,
            answered_by="full",
            prompt_tokens=200,
            script="latin",
        )
        counts = Counts("other", Signal.FAILURE, 5, 0)
        own = RunReport(Run("demo", "int8", run), (pair,), (counts,))
        report = Report("comparator-0@one", "p1", number + 1, (own,))
        return {
            "id": number + 1, "source": report.source, "incarnation": report.process_start_id,
            "seq": report.seq, "at": now.isoformat(),
            "payload": msgspec.json.encode(report).decode(),
        }  # fmt: skip

    engine = sa.create_engine(f"sqlite:///{file}")
    tables = sa.MetaData()
    tables.reflect(engine)
    for first in range(0, count, _BATCH):
        numbers = range(first, min(count, first + _BATCH))
        with engine.begin() as connection:
            connection.execute(sa.insert(tables.tables["events"]), [event(n) for n in numbers])
            connection.execute(sa.insert(tables.tables["reports"]), [report(n) for n in numbers])
            rows = [{"run": run, "report": n + 1} for n in numbers]
            connection.execute(sa.insert(tables.tables["report_runs"]), rows)
    engine.dispose()
    store.close()


@contextmanager
def _timed(found: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    found[name] = time.perf_counter() - began


@asynccontextmanager
async def _waits(process: Process, found: dict[str, float], name: str) -> AsyncIterator[None]:
    """Measure the longest wait of a change that comes meanwhile, in milliseconds."""
    longest = 0.0

    async def ask() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            async with process.controller.writing():
                longest = max(longest, time.perf_counter() - began)
            await asyncio.sleep(0.002)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.01)
    yield
    await asyncio.sleep(0.01)
    asking.cancel()
    found[name] = 1000 * longest


async def _measure(folder: Path, count: int) -> dict[str, float]:
    found: dict[str, float] = {}
    file = folder / "store.db"
    url = f"sqlite:///{file}"
    run = await begin(url)
    await asyncio.to_thread(_fill, file, run, count)
    found["MB"] = await asyncio.to_thread(lambda: file.stat().st_size / 1e6)
    process = Process(url)
    with _timed(found, "start without, s"):
        await process.start()
    async with _waits(process, found, "wait, checkpoints written, ms"):
        for _ in range(2):
            await process.rollouts.keep_house()
    await process.close()
    process = Process(url)
    with _timed(found, "start with, s"):
        await process.start()
    async with _waits(process, found, "wait, failed commit, ms"):
        process.controller.is_behind = True
        process.rollouts.lose_track()
        await process.rollouts.decide_pending()
    # The run is over: its reports are deleted, some at each tick.
    state, now = process.controller.state, datetime.now(UTC)
    other = _SPEC.model_copy(update={"alpha": 0.02})
    await process.rollouts.put(
        lambda: operator_actions.apply(state, other, "again", now, "run"), "ann", "again"
    )
    process.ahead += timedelta(hours=2)
    async with _waits(process, found, f"wait, {PRUNED_AT_ONCE} rows pruned, ms"):
        for _ in range(10):
            await process.rollouts.keep_house()
    await process.close()
    return found


def main() -> None:
    """Run it, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    checkpoints.SECONDS = 0.0
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append((size, asyncio.run(_measure(Path(folder), size))))
    names = list(rows[0][1])
    print(f"| events, and reports | {' | '.join(names)} |")
    print(f"|{' ---: |' * (len(names) + 1)}")
    for size, figures in rows:
        print(f"| {size:,} | {' | '.join(f'{figures[name]:.3g}' for name in names)} |")


if __name__ == "__main__":
    main()
