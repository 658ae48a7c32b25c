"""The API keys that one gateway process has in force, and the connections that know a caller.

The keys are those of the settings file until a routing table brings others. A change is one
assignment: requests under way end as they began, and each connection identifies its next one anew.
"""

import logging
from typing import Protocol
from weakref import WeakSet

from penumbra.router.addresses import is_loopback
from penumbra.router.flags.tenant_keys import KeySettings
from penumbra.router.gateway.api_keys import Caller, KeyRing
from penumbra.router.settings import GatewaySettings

log = logging.getLogger(__name__)


class KnowsCaller(Protocol):
    """A connection that keeps the caller of its last request."""

    def forget_caller(self) -> None:
        """Have the caller of the next request identified."""


class KeysInForce:
    """The API keys of one gateway process.

    Args:
        settings: Settings of the process.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._host = settings.host
        self._keys = settings.keys
        # Without keys it lets everyone in, which only this machine may be given.
        self._ring = KeyRing(self._keys, settings.processes, is_open=is_loopback(settings.host))
        self._knowing: WeakSet[KnowsCaller] = WeakSet()

    def identify(
        self, authorization: bytes | None, connection: KnowsCaller | None = None
    ) -> Caller:
        """Find the caller that an `authorization` header names.

        Args:
            authorization: The header.
            connection: Told when the caller may be another one.

        Raises:
            InvalidKey: Keys are in force and the header holds none of them.
        """
        caller = self._ring.identify(authorization)
        if connection is not None:
            self._knowing.add(connection)
        return caller

    def take(self, keys: tuple[KeySettings, ...] | None) -> None:
        """Put the keys of a routing table into force; None: it tells none, and they stay.

        An older control process tells none. What another one revoked before stays revoked.
        """
        if keys is None or keys == self._keys:
            return
        self._ring, self._keys = self._ring.followed_by(keys), keys
        for connection in self._knowing:
            connection.forget_caller()
        self._knowing.clear()
        if not keys and not is_loopback(self._host):
            log.error("gateway_without_keys", extra={"host": self._host})
        log.info("keys_applied", extra={"keys": len(keys)})
