"""Limits on connections to the control process, in force before any token is known.

A connection is *known* while its latest request shows a token of this control process. All others
are bounded in number: one more closes the oldest of the host that holds most of them, so
an operator's connection is always taken, however many others lie idle.

Reading order: ConnectionLimits, Connections, `penumbra.deployments.api.limited_protocol`.
"""

import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from penumbra.deployments.api.refused_logins import RefusedLogins

_DESCRIPTORS_SHARE = 4


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of each connection, and of the connections without a valid token."""

    head_bytes: int = 64 * 1024
    """A request's line and headers together; 431 beyond."""
    head_seconds: float = 10.0
    """From the connection, or from the first byte of a later request, to the end of its head."""
    body_seconds: float = 30.0
    """From the end of a head to the end of its body; 408 beyond, where the body is read."""
    discard_seconds: float = 5.0
    """Time in which the rest of a body whose request is answered may still come."""
    answer_seconds: float = 120.0
    """From the end of a request until its answer is written and taken."""
    idle_seconds: float = 15.0
    """From the end of an answer to the next request."""
    unknown: int = 256
    """Connections without a valid token; a quarter of the descriptors if that is less."""
    backlog: int = 128
    """Connections that the kernel keeps until they are taken."""


class Connection(Protocol):
    """One connection without a valid token."""

    @property
    def host(self) -> str:
        """The address at its other end; empty if that is not known."""

    def abort(self) -> None:
        """Close it at once."""


class Connections:
    """The connections without a valid token.

    Args:
        is_known: Whether an `authorization` header has a token of this control process.
        limits: Their bounds.
        refused: Takes links that are refused for their token.
        descriptors: Returns the largest number of files that this process may have open.
        needs_certificate: Whether a link has to show a certificate, by TLS.
    """

    def __init__(
        self,
        is_known: Callable[[str | None], bool],
        limits: ConnectionLimits | None = None,
        refused: RefusedLogins | None = None,
        descriptors: Callable[[], int] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        *,
        needs_certificate: bool = False,
    ) -> None:
        self.is_known = is_known
        self.limits = limits or ConnectionLimits()
        self.refused = refused or RefusedLogins()
        self.needs_certificate = needs_certificate
        self._descriptors = descriptors
        self._unknown: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._unknown)

    def admit(self, connection: Connection) -> None:
        """Count a connection that shows no valid token; makes room for it if there is none."""
        if connection in self._unknown:
            return
        most = max(1, min(self.limits.unknown, self._descriptors() // _DESCRIPTORS_SHARE))
        while len(self._unknown) >= most:
            oldest = self._oldest()
            del self._unknown[oldest]
            oldest.abort()
        self._unknown[connection] = None

    def forget(self, connection: Connection) -> None:
        """Count a connection no more: it is closed, or its request shows a valid token."""
        self._unknown.pop(connection, None)

    def _oldest(self) -> Connection:
        hosts = Counter(connection.host for connection in self._unknown)
        host = max(hosts, key=hosts.__getitem__)
        # The oldest, busy or not: the youngest may be an operator's, whose head is on its way.
        return next(connection for connection in self._unknown if connection.host == host)
