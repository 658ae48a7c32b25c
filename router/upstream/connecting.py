"""Connecting to a host: each of its addresses is tried, and the first that answers is taken.

RFC 8305 ("happy eyeballs"): the next address is tried as soon as one fails, and after a moment
without an answer while the earlier ones go on. asyncio has this, uvloop's loop has not.
"""

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Sequence

from penumbra.router.upstream.resolver import Address

_GATEWAY_LIMITS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)
"""No descriptors, no memory, no ports: the server was not asked."""

_STAGGER_SECONDS = 0.25
"""Time after which the next address is tried: RFC 8305's recommendation."""
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A peer that vanished is noticed within a minute: after 30 s of silence, 3 probes 10 s apart."""


def is_gateway_limit(error: OSError) -> bool:
    """Whether a connect failed because this machine lacks something, whatever the server does."""
    return error.errno in _GATEWAY_LIMITS


async def connect(addresses: Sequence[Address], seconds: float) -> socket.socket:
    """Connect to the first address that answers.

    Args:
        addresses: The addresses in order, at least one.
        seconds: The time there is for all of them; the caller ends it.

    Raises:
        OSError: None answered; the error is one that a server is to blame for, if there was one.
    """
    if len(addresses) == 1:
        return await _connect_one(addresses[0])
    # Half of the time is left for the last one.
    stagger = min(_STAGGER_SECONDS, seconds / 2 / len(addresses))
    waiting = deque(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_connect_one(waiting.popleft())))
            done, _ = await asyncio.wait(
                running,
                timeout=stagger if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                running.discard(task)
                try:
                    return task.result()
                except OSError as error:
                    errors.append(error)
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_unused)
    raise next((error for error in errors if not is_gateway_limit(error)), errors[0])


def _close_unused(task: "asyncio.Task[socket.socket]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect_one(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            option = getattr(socket, name, None)  # not on every system
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock
