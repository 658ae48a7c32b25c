"""Refused logins: requests and links without the token that they need, counted, logged and slowed.

Only refusals are slowed down, each by itself, so a valid token is never held up, from whichever
address it comes. A refused token is in no log line.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from penumbra.deployments.metrics.control_metrics import Series
from penumbra.monitoring.telemetry import control

log = logging.getLogger(__name__)

FREE = 5
"""Refusals of one address that are answered at once."""
STEP_SECONDS = 0.25
"""Time by which each further one is answered later."""
MOST_SECONDS = 2.0
FORGET_SECONDS = 10.0
"""Time after which one refusal of an address is forgotten."""
_LOG_SECONDS = 60.0
_MOST_ADDRESSES = 1000
_ADDRESS_CHARS = 64


class Surface(StrEnum):
    """The part of the control process that was asked. The values are exported."""

    ADMIN = "admin"
    ALERTS = "alerts"
    LINK = "link"


class Cause(StrEnum):
    """The reason for which a login was refused. The values are exported."""

    NO_TOKEN = "no_token"  # noqa: S105 -- a name
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 -- a name
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 -- a name
    REVOKED_TOKEN = "revoked_token"  # noqa: S105 -- a name
    NO_CERTIFICATE = "no_certificate"
    """A link without the certificate that it has to show."""
    NOT_ALLOWED = "not_allowed"
    """The token is known, and not good for this."""


@dataclass(slots=True)
class _Address:
    recent: float = 0.0
    """Refusals that are not forgotten."""
    at: float = 0.0
    """When the last one was."""
    logged_at: float | None = None
    unlogged: int = 0


class RefusedLogins:
    """Refused logins of one control process.

    Args:
        now: Monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.counts: dict[tuple[str, ...], int] = {
            (surface.value, cause.value): 0 for surface in Surface for cause in Cause
        }
        """(surface, cause) -> refusals since this process began."""
        self._addresses: dict[str, _Address] = {}
        self.cause_of: Callable[[str | None], Cause] = cause_of
        """Tells why a request with this `authorization` header is refused."""

    def note(self, address: str, surface: Surface, cause: Cause) -> float:
        """Count a refused login, and log it unless one of the address was logged in this minute.

        Args:
            address: The host that it came from; empty if that is not known.
            surface: What was asked.
            cause: Why it is refused.

        Returns:
            Seconds after which to answer it; 0 for a known token.
        """
        self.counts[surface.value, cause.value] += 1
        found, now = self._address(address[:_ADDRESS_CHARS]), self._now()
        self._log(found, address[:_ADDRESS_CHARS], surface, cause)
        if cause is Cause.NOT_ALLOWED:
            return 0.0
        found.recent = max(0.0, found.recent - (now - found.at) / FORGET_SECONDS) + 1.0
        found.at = now
        return min(MOST_SECONDS, max(0.0, found.recent - FREE) * STEP_SECONDS)

    async def series(self) -> list[Series]:
        """The counts, for the metrics."""
        return [(control.LOGINS_REFUSED, self.counts)]

    def _address(self, address: str) -> _Address:
        # To the end: the one that was quiet for longest makes room.
        found = self._addresses.pop(address, None) or _Address(at=self._now())
        while len(self._addresses) >= _MOST_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        self._addresses[address] = found
        return found

    def _log(self, found: _Address, address: str, surface: Surface, cause: Cause) -> None:
        now = self._now()
        if found.logged_at is not None and now - found.logged_at < _LOG_SECONDS:
            found.unlogged += 1
            return
        log.warning(
            "login_refused",
            extra={
                "address": address,
                "surface": surface.value,
                "reason": cause.value,
                "refused_before": found.unlogged,
            },
        )
        found.logged_at, found.unlogged = now, 0


def cause_of(authorization: str | None) -> Cause:
    """The reason for which a request with this header, which no token opens, is refused."""
    return Cause.UNKNOWN_TOKEN if authorization else Cause.NO_TOKEN
