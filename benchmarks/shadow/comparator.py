"""The shipped comparator on a fixed routing table, without a control process.

    python -m benchmarks.shadow.comparator SETTINGS.json SNAPSHOT.json

What it would report is acknowledged at once. Settings and snapshot are the shipped ones' JSON.
"""

import asyncio
import datetime as dt
import sys
import time
from pathlib import Path

import uvloop

from penumbra.router.flags.routing_table import Snapshot, Variant
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.listening import bind
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.comparator import Comparator
from penumbra.router.shadow.engine_checks import EngineChecks
from penumbra.router.shadow.engine_facts import EngineFacts
from penumbra.router.shadow.frame_server import FrameServer, nice
from penumbra.router.shadow.server import _serve  # the shipped metrics endpoint
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.shadow.watch_list import WatchList
from penumbra.router.upstream.http import HttpUpstream
from penumbra.router.upstream.port import Upstream


def _connect(model: str, variant: Variant, api_key: str | None) -> Upstream:
    return HttpUpstream(model, variant.url, api_key=api_key)


async def _acknowledge(outbox: ObservationOutbox) -> None:
    while True:
        await asyncio.sleep(0.05)
        report = outbox.next_report()
        if report is not None:
            outbox.acknowledge(report.process_start_id, report.seq)


async def _main(settings: ShadowSettings, snapshot: Snapshot) -> None:
    nice(settings.niceness)
    clocks = Clocks(time.monotonic, lambda: dt.datetime.now(dt.UTC).timestamp())
    outbox = ObservationOutbox(settings.comparator_id, "bench")
    watched = WatchList(_connect, settings.bets)
    facts = EngineFacts(settings, clocks)
    comparator = Comparator(settings, watched, facts, outbox, clocks)
    engine_checks = EngineChecks(settings, watched, facts, outbox, clocks, comparator.metrics)
    frames = FrameServer(settings.socket_path, comparator)
    watched.apply(snapshot)
    async with asyncio.TaskGroup() as group:
        for part in (frames, comparator, engine_checks):
            group.create_task(part.run())
        group.create_task(_acknowledge(outbox))
        if settings.internal_port is not None:
            sock = bind("127.0.0.1", settings.internal_port, "internal_port")
            group.create_task(_serve(comparator, sock))


if __name__ == "__main__":
    uvloop.run(
        _main(
            ShadowSettings.model_validate_json(Path(sys.argv[1]).read_bytes()),
            Snapshot.model_validate_json(Path(sys.argv[2]).read_bytes()),
        )
    )
