"""API keys, known by digest only, and the limits of their tenants.

Each process enforces its share of a limit (limit / processes), so no request waits for a shared
counter. A limit below the number of processes is refused when the settings are read, and when the
control process is given new ones; a process lets one request through all the same.

The keys in force change while a gateway runs: a new `KeyRing` takes the place of the one before,
with the same `Tenant`s, so that what is in flight and what was used of a rate stay counted.
"""

import hashlib
from collections.abc import Iterable, Mapping

from penumbra.router.errors import InvalidKey, RateLimited
from penumbra.router.flags.tenant_keys import KeySettings, TenantLimits

_MINUTE_SECONDS = 60.0
_BURST_FRACTION = 6.0


class Tenant:
    """The limits of one tenant and its present use of them."""

    __slots__ = ("_burst", "_capacity", "_rate", "_refilled_at", "_tokens", "in_flight", "name")

    def __init__(self, name: str, limits: TenantLimits, processes: int) -> None:
        self.name = name
        self.in_flight = 0
        self._rate: float | None = None
        self._burst = self._tokens = 0.0
        self._refilled_at = 0.0
        self.limit(limits, processes)

    def limit(self, limits: TenantLimits, processes: int) -> None:
        """Put limits into force; what is in flight, and what was used of the rate, stays counted.

        Args:
            limits: Limits of the whole tenant.
            processes: Gateway processes that share them.
        """
        self._capacity = _share(limits.concurrency, processes)
        per_minute = _share(limits.requests_per_minute, processes)
        rate, burst = self._rate, self._burst
        self._rate = None if per_minute is None else per_minute / _MINUTE_SECONDS
        self._burst = 0.0 if per_minute is None else max(1.0, per_minute / _BURST_FRACTION)
        if rate is None:  # nothing was counted
            self._tokens = self._burst
        elif self._burst < burst:
            self._tokens = min(self._tokens, self._burst)

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
    return None if limit is None else max(1, limit // processes)


class Caller:
    """One API key: its tenant and its rights."""

    __slots__ = ("key_id", "may_pin", "tenant")

    def __init__(self, key_id: str, tenant: Tenant, *, may_pin: bool) -> None:
        self.key_id = key_id
        self.tenant = tenant
        self.may_pin = may_pin


class KeyRing:
    """All API keys. Without any, every caller is the tenant `anonymous` and may pin.

    Args:
        keys: The keys.
        processes: Gateway processes that share the tenants' limits.
        is_open: Whether a caller without a key is let in where there are no keys.
        known: Tenants by name that go on with their counts.
    """

    def __init__(
        self,
        keys: Iterable[KeySettings],
        processes: int,
        *,
        is_open: bool = True,
        known: Mapping[str, Tenant] | None = None,
    ) -> None:
        self._processes = processes
        self._is_open = is_open
        self._callers: dict[bytes, Caller] = {}
        tenants: dict[str, Tenant] = {}
        for key in keys:
            tenant = tenants.get(key.tenant)
            if tenant is None:
                # Keys of one tenant share its limits; the limits of its first key count.
                tenant = (known or {}).get(key.tenant) or Tenant(key.tenant, key.limits, processes)
                tenant.limit(key.limits, processes)
                tenants[key.tenant] = tenant
            caller = Caller(key.key_id, tenant, may_pin=key.may_pin)
            self._callers[bytes.fromhex(key.sha256)] = caller
        # A tenant without a key may have one again before its last request ends.
        leaving = {name: tenant for name, tenant in (known or {}).items() if tenant.in_flight}
        self._tenants = leaving | tenants
        anonymous = Caller("", Tenant("anonymous", TenantLimits(), 1), may_pin=True)
        self._anonymous = None if self._callers or not is_open else anonymous

    def followed_by(self, keys: Iterable[KeySettings]) -> "KeyRing":
        """Make the ring of other keys; tenants that stay go on with their counts."""
        return KeyRing(keys, self._processes, is_open=self._is_open, known=self._tenants)

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
