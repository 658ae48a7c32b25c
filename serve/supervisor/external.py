"""Watches external variants, which other servers host: only whether they answer.

A gateway starts, and goes on, without them: failing over is its job.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable

import httpx

from penumbra.router.upstream.tls import client_context
from penumbra.serve.supervisor.state import Phase, VariantRecord

_PERIOD_SECONDS = 2.0
_NOTE = "no answer yet; it may still be starting"


async def watch_external(records: dict[str, VariantRecord], on_change: Callable[[], None]) -> None:
    """Keep the phase of every external variant up to date, until cancelled."""
    keys = [key for key, record in records.items() if not record.is_hosted]
    if not keys:
        return
    async with contextlib.AsyncExitStack() as stack:
        clients = {key: await stack.enter_async_context(client_of(records[key])) for key in keys}
        while True:
            phases = await asyncio.gather(*(_phase(clients[key], records[key].url) for key in keys))
            for key, phase in zip(keys, phases, strict=True):
                if records[key].phase is not phase:
                    note = _NOTE if phase is Phase.UNREACHABLE else ""
                    update = {"phase": phase, "message": note}
                    records[key] = records[key].model_copy(update=update)
                    on_change()
            await asyncio.sleep(_PERIOD_SECONDS)


def client_of(record: VariantRecord) -> httpx.AsyncClient:
    """An HTTP client for one variant's server."""
    try:
        context = _context(record.ca_file)
    except ValueError:  # the gateways say what is wrong with it
        context = _context(None)
    return httpx.AsyncClient(timeout=_PERIOD_SECONDS, trust_env=False, verify=context)


# Reading all certificates takes tens of milliseconds.
_context = functools.cache(client_context)


async def _phase(client: httpx.AsyncClient, url: str) -> Phase:
    try:
        response = await client.get(f"{url}/health")
    except httpx.HTTPError:
        return Phase.UNREACHABLE
    # A server that wants a key, or lacks this page, does answer.
    return Phase.UNREACHABLE if response.status_code >= 500 else Phase.READY
