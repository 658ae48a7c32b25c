"""Keeps unit tests to themselves: no network socket, no Ray.

A test that opens one fails where it does, and again at its end, in case the code under test
swallowed the error. The event loop's own socket pair (Unix domain) is let through.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCAL_FAMILIES = frozenset({socket.AF_UNIX})
_active: list[list[str]] = []


class IsolationBroken(AssertionError):
    """A unit test opened a network socket or started Ray."""


@contextmanager
def isolated() -> Iterator[list[str]]:
    """Forbid network sockets and `ray.init` inside.

    Yields:
        The forbidden calls that were tried.

    Raises:
        IsolationBroken: At the end, if a call was tried.
    """
    tried: list[str] = []
    _active.append(tried)
    ray = sys.modules.get("ray")
    original = getattr(ray, "init", None)
    if ray is not None:
        ray.init = _refuse_ray  # type: ignore[attr-defined]
    try:
        yield tried
    finally:
        _active.remove(tried)
        if ray is not None:
            ray.init = original  # type: ignore[attr-defined]
    if tried:
        raise IsolationBroken(f"a unit test must not do this: {', '.join(tried)}")


def _refuse_ray(*_: object, **__: object) -> None:
    _refuse("ray.init")


def _refuse(call: str) -> None:
    _active[-1].append(call)
    raise IsolationBroken(f"a unit test must not do this: {call}")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _active:
        return
    if event == "socket.__new__" and arguments[1] not in _LOCAL_FAMILIES:
        _refuse(f"open a socket of family {arguments[1]!r}")
    elif event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
        _refuse(event)


# An audit hook sees sockets however they are made, and cannot be undone; it acts only inside
# `isolated`.
sys.addaudithook(_watch)
