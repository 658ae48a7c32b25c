"""The guard's half of a control process, with one fixed routing table: no flags, no rollouts.

`python -m tests.support.guard_process --port N --table FILE --lease SECONDS`

All that leases depend on is real: inboxes, publishers, the tick, the writes to the store.
"""

import argparse
import asyncio
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from penumbra.deployments.api.access import Access
from penumbra.deployments.api.link_route import link_router
from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.gateways.tick import ControlTick
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import Report
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.messages import COMPARATOR_PATH
from tests.support.control_plane import lead
from tests.support.control_process import GATEWAY


async def _drop(report: Report) -> None:
    """Take a report and forget it."""


async def _do_nothing() -> None:
    """Decide nothing: there are no rollouts."""


async def _serve(port: int, table: Snapshot, lease_seconds: float, folder: Path) -> None:
    store = lead(Store(f"sqlite:///{folder / 'guard.db'}"))
    liveness = GuardLiveness(lease_seconds)
    comparators = Publisher(store.identity, time.monotonic)
    gateways = Publisher(store.identity, time.monotonic, follower=comparators)
    inbox = LinkInbox(liveness, time.monotonic, _drop, newest_table=lambda: gateways.snapshot)
    comparator_inbox = LinkInbox(liveness, time.monotonic, _drop, is_for_comparators=True)
    gateways.publish(table, time.monotonic())

    async def prove() -> None:
        await asyncio.to_thread(store.renew, lease_seconds, lease_seconds)

    access = Access({}, GATEWAY)
    app = FastAPI()
    app.include_router(link_router(gateways, inbox, access))
    app.include_router(link_router(comparators, comparator_inbox, access, COMPARATOR_PATH))

    @app.get("/links")
    async def links() -> dict[str, int]:
        return {"gateways": len(gateways.links), "comparators": len(comparators.links)}

    tick = ControlTick(liveness, _do_nothing, prove, time.monotonic)

    async def tick_on() -> None:
        while True:
            await tick.run_once()
            await asyncio.sleep(liveness.period_seconds)

    ticking = asyncio.create_task(tick_on())
    config = uvicorn.Config(
        app, port=port, ws="websockets-sansio", lifespan="off", log_level="warning"
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        ticking.cancel()


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--lease", type=float, required=True)
    given = parser.parse_args()
    table = Snapshot.model_validate_json(given.table.read_bytes())
    asyncio.run(_serve(given.port, table, given.lease, given.table.parent))


if __name__ == "__main__":
    main()
