"""The guard's half of a control process, with one fixed routing table: no flags, no rollouts.

`python -m tests.support.guard_process --port N --table FILE --lease SECONDS`

Everything that leases depend on is the real thing: desks, publishers, heart, the store's writes.
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
from tests.support.control_process import GATEWAY


async def _take(report: Report) -> None:
    """Reports are of no interest here."""


async def _serve(port: int, table: Snapshot, lease_seconds: float, folder: Path) -> None:
    store = Store(f"sqlite:///{folder / 'guard.db'}")
    liveness = GuardLiveness(lease_seconds)
    desks = (
        LinkInbox(liveness, time.monotonic),
        LinkInbox(liveness, time.monotonic, is_for_comparators=True),
    )
    for desk in desks:
        desk.on_report = _take
    comparators = Publisher(store.identity, time.monotonic, desks[1])
    gateways = Publisher(store.identity, time.monotonic, desks[0], follower=comparators)
    gateways.publish(table, time.monotonic())

    async def prove() -> None:
        await asyncio.to_thread(store.prove)

    access = Access({}, GATEWAY)
    app = FastAPI()
    app.include_router(link_router(gateways, access))
    app.include_router(link_router(comparators, access, COMPARATOR_PATH))

    @app.get("/links")
    async def links() -> dict[str, int]:
        return {"gateways": len(gateways.links), "comparators": len(comparators.links)}

    beating = asyncio.create_task(ControlTick(liveness, prove, time.monotonic).run())
    config = uvicorn.Config(
        app, port=port, ws="websockets-sansio", lifespan="off", log_level="warning"
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        beating.cancel()


def main() -> None:
    """Serve until it is told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--lease", type=float, required=True)
    given = parser.parse_args()
    table = Snapshot.model_validate_json(given.table.read_bytes())
    asyncio.run(_serve(given.port, table, given.lease, given.table.parent))


if __name__ == "__main__":
    main()
