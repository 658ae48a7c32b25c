"""Registry of gateways and comparators: the connected ones, and those that were just lost.

A process that died must not vanish from Prometheus's targets at once: its series would go stale and
`up` with them, and no alert could say that it is down. A process that ends in order shows it by the
way in which it closes its link, and stays listed only until Prometheus has asked again.
"""

import logging
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass

from penumbra.deployments.gateways.link import Link
from penumbra.monitoring.telemetry.metric import Process
from penumbra.router.addresses import is_loopback, join_host_port

log = logging.getLogger(__name__)

LOST_SECONDS = 900.0
"""Time for which a lost process stays listed."""
ENDED_SECONDS = 30.0
"""Time for which a process that ended in order stays listed."""
MOST_LOST = 100
"""Largest number of lost processes that are listed; the oldest make room. A process that dies again
and again may have a new name each time."""

_ADDRESS = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})$")
_LARGEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One gateway or comparator."""

    kind: Process
    name: str
    machine: str
    """Name of its machine; empty on the control process's own."""
    address: str
    """`HOST:PORT` of its metrics."""


class ProcessRegistry:
    """Lists the processes of both kinds.

    Args:
        now: Monotonic clock, seconds.
        machine: Name of the control process's own machine.
    """

    def __init__(self, now: Callable[[], float], machine: str = "") -> None:
        self._now = now
        self._machine = machine or platform.node()
        self._connected: dict[ProcessEntry, Link] = {}
        self._until: dict[ProcessEntry, float] = {}
        """Lost process -> time until which it is listed."""

    def connect(self, kind: Process, link: Link) -> None:
        """Adds a process that has connected."""
        entry = self._read_entry(kind, link)
        if entry is not None:
            self._until.pop(entry, None)
            self._connected.pop(entry, None)  # to the end: the newest keeps its plain name
            self._connected[entry] = link

    def disconnect(self, link: Link) -> None:
        """Marks the process of a closed connection as lost or ended."""
        connected = self._connected.items()
        entry = next((entry for entry, own_link in connected if own_link is link), None)
        if entry is None:
            return  # it has no metrics, or has connected again before this was noticed
        del self._connected[entry]
        seconds = ENDED_SECONDS if link.has_ended else LOST_SECONDS
        self._until[entry] = self._now() + seconds
        while len(self._until) > MOST_LOST:
            del self._until[next(iter(self._until))]

    def present(self) -> list[ProcessEntry]:
        """Lists all processes, the last connected first."""
        now = self._now()
        self._until = {entry: until for entry, until in self._until.items() if until > now}
        return [*reversed(self._connected), *reversed(self._until)]

    def is_linked(self, entry: ProcessEntry) -> bool:
        """Whether the process holds a link now."""
        return entry in self._connected

    def _read_entry(self, kind: Process, link: Link) -> ProcessEntry | None:
        hello = link.hello
        if not hello.metrics:
            return None
        address, problem = _resolve_address(hello.metrics, link.peer)
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


def _resolve_address(announced: str, peer: str) -> tuple[str, str]:
    """Returns the address that a process announced, and the problem with it, if any."""
    found = _ADDRESS.match(announced)
    if found is None or not 0 < int(found[2]) <= _LARGEST_PORT:
        return announced, "wanted HOST:PORT or :PORT"
    if found[1]:
        return announced, ""
    if not peer:
        return announced, "a port without host, and the host is not known: set metrics.announce"
    return join_host_port(peer, int(found[2])), ""
