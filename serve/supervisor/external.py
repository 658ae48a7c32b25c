"""Watches external variants, which other servers host: only whether they answer.

A gateway starts, and goes on, without them: failing over is its job.
"""

import asyncio
import contextlib
from collections.abc import Callable

import httpx

from penumbra.router.upstream.tls import client_context
from penumbra.serve.supervisor.state import Phase, VariantRecord

_PERIOD_SECONDS = 2.0


async def watch_external(records: dict[str, VariantRecord], on_change: Callable[[], None]) -> None:
    """Keep the phase of every external variant up to date, until cancelled."""
    keys = [key for key, record in records.items() if not record.is_hosted]
    if not keys:
        return
    async with contextlib.AsyncExitStack() as stack:
        clients = {key: await stack.enter_async_context(_client(records[key])) for key in keys}
        while True:
            phases = await asyncio.gather(*(_phase(clients[key], records[key].url) for key in keys))
            for key, phase in zip(keys, phases, strict=True):
                if records[key].phase is not phase:
                    records[key] = records[key].model_copy(update={"phase": phase})
                    on_change()
            await asyncio.sleep(_PERIOD_SECONDS)


def _client(record: VariantRecord) -> httpx.AsyncClient:
    try:
        context = client_context(record.ca_file)
    except ValueError:  # the gateways say what is wrong with it
        context = client_context()
    return httpx.AsyncClient(timeout=_PERIOD_SECONDS, trust_env=False, verify=context)


async def _phase(client: httpx.AsyncClient, url: str) -> Phase:
    try:
        response = await client.get(f"{url}/health")
    except httpx.HTTPError:
        return Phase.UNREACHABLE
    # A server that wants a key, or lacks this page, does answer.
    return Phase.UNREACHABLE if response.status_code >= 500 else Phase.READY
