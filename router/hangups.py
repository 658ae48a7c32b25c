"""SIGHUP: ignored at first, since its default is to end the process; then a request to read again.

A terminal that is closed, `logrotate` and habits of other servers send it: it never ends a process.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable


def ignore_hangups() -> None:
    """Ignore SIGHUP from here on, also in processes that this one starts; for entry points."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def follow_hangups(reread: Callable[[], Awaitable[None]]) -> None:
    """Call `reread` after each SIGHUP, until cancelled; several at once count as one.

    Args:
        reread: Reads again what may have changed; handles its own failures.
    """
    asked = asyncio.Event()
    # Not removed at the end: without a handler SIGHUP ends the process.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        await reread()
