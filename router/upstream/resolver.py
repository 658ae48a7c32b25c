"""Look-up of one upstream's addresses, done again whenever a connection is made.

`getaddrinfo` blocks its thread, for half a minute where a name server is silent, and the threads
that event loops have for it are few and shared by all names. So each name has a thread of its own
for the time of a look-up, and connections that are made meanwhile share its result.
"""

import asyncio
import contextlib
import errno
import itertools
import socket
import threading
from collections.abc import Sequence
from typing import NamedTuple


class Address(NamedTuple):
    """One address of a host, as `socket` wants it."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


Found = Sequence[Address] | OSError


class Resolver:
    """The addresses of one host and port.

    Args:
        host: Name or address.
        port: Its port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._known = _numeric(host, port)
        self._looking: asyncio.Future[Found] | None = None

    async def addresses(self) -> Sequence[Address]:
        """Return all addresses, in the order in which they should be tried.

        Raises:
            OSError: There is none, or the look-up failed.
        """
        if self._known:
            return self._known
        if self._looking is None:
            self._looking = self._begin()
        found = await asyncio.shield(self._looking)
        if isinstance(found, OSError):
            raise found
        return found

    def _begin(self) -> "asyncio.Future[Found]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()
        name = f"look-up of {self._host}"
        thread = threading.Thread(target=self._look_up, args=(loop, future), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # too many threads, or no memory for one more
            raise OSError(errno.ENOMEM, "no thread for a look-up") from error
        return future

    def _look_up(self, loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Found]") -> None:
        found: Found
        try:
            found = in_order(_addresses(self._host, self._port))
        except UnicodeError:
            found = OSError(errno.EINVAL, "the host is no name")
        except OSError as error:
            found = _explained(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(self._settle, future, found)

    def _settle(self, future: "asyncio.Future[Found]", found: Found) -> None:
        self._looking = None
        if not future.done():
            future.set_result(found)


def in_order(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Order addresses as RFC 8305 (section 4) tries them: by turns of each family.

    The first family is that of the first address; within a family the order stays.
    """
    first = [item for item in addresses if item.family == addresses[0].family]
    others = [item for item in addresses if item.family != addresses[0].family]
    turns = itertools.zip_longest(first, others)
    return tuple(item for turn in turns for item in turn if item is not None)


def _numeric(host: str, port: int) -> tuple[Address, ...]:
    """The address that `host` is; nothing if it is a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, UnicodeError):
            continue
        is_v4 = family == socket.AF_INET
        return (Address(family, (host, port) if is_v4 else (host, port, 0, 0)),)
    return ()


def _addresses(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # Python built without IPv6 gives other tuples for its addresses.
    return [
        Address(family, sockaddr)
        for family, _, _, _, sockaddr in found
        if isinstance(sockaddr[0], str)
    ]


def _explained(error: OSError) -> OSError:
    """The reason of a failed look-up: the resolver does not say that it could open no file."""
    if not isinstance(error, socket.gaierror):
        return error
    try:
        socket.socket().close()
    except OSError as own:
        return own
    return error
