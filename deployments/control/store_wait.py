"""Waits at a start for a store whose database is away."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import make_url

from penumbra.deployments.errors import StoreAway, StoreInDoubt
from penumbra.monitoring.log_limit import LogLimit

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 1.0


async def open_when_there(url: str, open_store: Callable[[], T]) -> T:
    """Open a store; wait for its database if there is a server to wait for.

    Args:
        url: The store's URL.
        open_store: Opens it; blocks.

    Raises:
        StoreUnavailable: It cannot be opened, and waiting would not help.
    """
    try:
        return open_store()
    except StoreAway:
        if make_url(url).get_backend_name() == "sqlite":
            raise

    async def open_once() -> T:
        return open_store()

    return await wait_for_store(open_once)


async def wait_for_store(
    work: Callable[[], Awaitable[T]], retry_seconds: float = RETRY_SECONDS
) -> T:
    """Repeat what needs the store until its database is there.

    Args:
        work: Asks the store.
        retry_seconds: From one try to the next.

    Raises:
        DeploymentsError: What the work raises, but for `StoreAway`.
    """
    limit = LogLimit(time.monotonic)
    while True:
        try:
            return await work()
        except (StoreAway, StoreInDoubt) as error:
            if (left_out := limit.take()) is not None:
                log.error(
                    "store_awaited",
                    extra={"code": error.code, "detail": error.message, "repeated": left_out},
                )
        await asyncio.sleep(retry_seconds)
