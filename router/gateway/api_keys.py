"""API keys, known by digest only, and the limits of their tenants.

Each process enforces its share of a limit (limit / processes), so no request waits for a shared
counter. A limit below the number of processes is refused when the settings are read.
"""

import hashlib
from collections.abc import Iterable

from penumbra.router.errors import InvalidKey, RateLimited
from penumbra.router.settings import KeySettings, TenantLimits

_MINUTE_SECONDS = 60.0
_BURST_FRACTION = 6.0


class Tenant:
    """The limits of one tenant and its present use of them."""

    __slots__ = ("_burst", "_capacity", "_rate", "_refilled_at", "_tokens", "in_flight", "name")

    def __init__(self, name: str, limits: TenantLimits, processes: int) -> None:
        self.name = name
        self.in_flight = 0
        self._capacity = _share(limits.concurrency, processes)
        per_minute = _share(limits.requests_per_minute, processes)
        self._rate = None if per_minute is None else per_minute / _MINUTE_SECONDS
        self._burst = 0.0 if per_minute is None else max(1.0, per_minute / _BURST_FRACTION)
        self._tokens = self._burst
        self._refilled_at = 0.0

    def enter(self, now: float) -> None:
        """Admit one request; the caller pairs it with one `leave`.

        Args:
            now: Monotonic seconds.

        Raises:
            RateLimited: Over the concurrency or the rate; nothing is counted then.
        """
        if self._capacity is not None and self.in_flight >= self._capacity:
            raise RateLimited(
                f"tenant {self.name} has {self.in_flight} requests in flight,"
                f" its limit here is {self._capacity}",
                1.0,
            )
        if self._rate is not None:
            self._take(now, self._rate)
        self.in_flight += 1

    def leave(self) -> None:
        """Count the end of one admitted request."""
        self.in_flight -= 1

    def charge(self, now: float) -> None:
        """Count one more request against the rate, without refusing it.

        The tenant may owe one burst at most, which later requests wait for.

        Args:
            now: Monotonic seconds.
        """
        if self._rate is not None:
            self._refill(now, self._rate)
            self._tokens = max(-self._burst, self._tokens - 1.0)

    def _refill(self, now: float, rate: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._refilled_at) * rate)
        self._refilled_at = now

    def _take(self, now: float, rate: float) -> None:
        self._refill(now, rate)
        if self._tokens < 1.0:
            raise RateLimited(
                f"tenant {self.name} is over its rate of {rate * _MINUTE_SECONDS:g}"
                " requests a minute here",
                (1.0 - self._tokens) / rate,
            )
        self._tokens -= 1.0


def _share(limit: int | None, processes: int) -> int | None:
    return None if limit is None else limit // processes


class Caller:
    """One API key: its tenant and its rights."""

    __slots__ = ("key_id", "may_pin", "tenant")

    def __init__(self, key_id: str, tenant: Tenant, *, may_pin: bool) -> None:
        self.key_id = key_id
        self.tenant = tenant
        self.may_pin = may_pin


class KeyRing:
    """All API keys. Without any, every caller is the tenant `anonymous` and may pin."""

    def __init__(self, keys: Iterable[KeySettings], processes: int) -> None:
        tenants: dict[str, Tenant] = {}
        self._callers: dict[bytes, Caller] = {}
        for key in keys:
            # Keys of one tenant share its limits; the limits of its first key count.
            tenant = tenants.setdefault(key.tenant, Tenant(key.tenant, key.limits, processes))
            caller = Caller(key.sha256[:12], tenant, may_pin=key.may_pin)
            self._callers[bytes.fromhex(key.sha256)] = caller
        anonymous = Caller("", Tenant("anonymous", TenantLimits(), 1), may_pin=True)
        self._anonymous = None if self._callers else anonymous

    def identify(self, authorization: bytes | None) -> Caller:
        """Find the caller that an `authorization` header names.

        The digest is looked up, not the key, so the time of the look-up tells nothing about a key.

        Raises:
            InvalidKey: Keys are configured and the header holds none of them.
        """
        if self._anonymous is not None:
            return self._anonymous
        if authorization is None:
            raise InvalidKey("no API key: send `Authorization: Bearer KEY`")
        scheme, _, key = authorization.partition(b" ")
        caller = self._callers.get(hashlib.sha256(key.strip()).digest())
        if caller is None or scheme.lower() != b"bearer":
            raise InvalidKey("this API key is not known here")
        return caller
