"""Which gateways and comparators there are: those that are connected, and those just lost.

A process that died must not vanish from Prometheus's targets at once: its series would go stale and
`up` with them, and no alert could say that it is down. One that ends in order says so by the way in
which it closes its link, and is kept only until Prometheus has asked again.
"""

import logging
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass

from penumbra.deployments.gateways.link import Link
from penumbra.monitoring.telemetry.metric import Process
from penumbra.router.listening import is_loopback, joined

log = logging.getLogger(__name__)

LOST_SECONDS = 900.0
"""For how long a process that was lost stays listed."""
ENDED_SECONDS = 30.0
"""The same for one that ended in order."""
MOST_LOST = 100
"""The ones lost longest ago make room: a process that dies again and again may have a new name each
time."""

_ADDRESS = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})$")
_LARGEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process."""

    kind: Process
    name: str
    machine: str
    """Empty: the control process's own."""
    address: str
    """`HOST:PORT` of its metrics."""


class ProcessRegistry:
    """Remembers the processes of both kinds.

    Args:
        now: Monotonic clock, seconds.
        machine: Name of the control process's own machine.
    """

    def __init__(self, now: Callable[[], float], machine: str = "") -> None:
        self._now = now
        self._machine = machine or platform.node()
        self._connected: dict[ProcessEntry, Link] = {}
        self._until: dict[ProcessEntry, float] = {}
        """Lost -> until when it is listed."""

    def came(self, kind: Process, link: Link) -> None:
        """A process has connected."""
        seen = self._seen(kind, link)
        if seen is not None:
            self._until.pop(seen, None)
            self._connected.pop(seen, None)  # to the end: the newest keeps its plain name
            self._connected[seen] = link

    def left(self, link: Link) -> None:
        """A connection is over."""
        seen = next((one for one, its in self._connected.items() if its is link), None)
        if seen is None:
            return  # it has no metrics, or has connected again before this was noticed
        del self._connected[seen]
        seconds = ENDED_SECONDS if link.has_ended else LOST_SECONDS
        self._until[seen] = self._now() + seconds
        while len(self._until) > MOST_LOST:
            del self._until[next(iter(self._until))]

    def present(self) -> list[ProcessEntry]:
        """All, those first that connected last."""
        now = self._now()
        self._until = {seen: until for seen, until in self._until.items() if until > now}
        return [*reversed(self._connected), *reversed(self._until)]

    def _seen(self, kind: Process, link: Link) -> ProcessEntry | None:
        hello = link.hello
        if not hello.metrics:
            return None
        address, problem = _address(hello.metrics, link.peer)
        is_here = hello.host in ("", self._machine) or is_loopback(link.peer.strip("[]"))
        if not problem and not is_here and is_loopback(address.rpartition(":")[0].strip("[]")):
            problem = "a loopback address of another machine: set metrics.host or metrics.announce"
        if problem:
            log.warning(
                "metrics_unreachable",
                extra={
                    "gateway": hello.gateway,
                    "machine": hello.host,
                    "address": hello.metrics,
                    "detail": problem,
                },
            )
            return None
        machine = "" if hello.host == self._machine else hello.host
        return ProcessEntry(kind, hello.gateway, machine, address)


def _address(told: str, peer: str) -> tuple[str, str]:
    """The address that a process told of, and what is wrong with it."""
    found = _ADDRESS.match(told)
    if found is None or not 0 < int(found[2]) <= _LARGEST_PORT:
        return told, "wanted HOST:PORT or :PORT"
    if found[1]:
        return told, ""
    if not peer:
        return told, "a port without host, and the host is not known: set metrics.announce"
    return joined(peer, int(found[2])), ""
