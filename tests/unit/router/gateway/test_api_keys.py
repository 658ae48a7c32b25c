import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penumbra.router.errors import InvalidKey, RateLimited
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.gateway.api_keys import KeyRing, Tenant
from penumbra.router.settings import GatewaySettings, KeySettings, TenantLimits


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_a_key_identifies_its_tenant() -> None:
    ring = KeyRing([KeySettings(tenant="acme", sha256=digest("k1"), may_pin=True)], 1)
    caller = ring.identify(b"Bearer k1")
    assert (caller.tenant.name, caller.may_pin) == ("acme", True)
    assert ring.identify(b"bearer  k1 ").tenant is caller.tenant


@pytest.mark.parametrize(
    "header", [None, b"", b"Bearer", b"Bearer k2", b"Basic k1", b"k1", b"\xff"]
)
def test_an_unknown_or_malformed_key_is_refused(header: bytes | None) -> None:
    ring = KeyRing([KeySettings(tenant="acme", sha256=digest("k1"))], 1)
    with pytest.raises(InvalidKey):
        ring.identify(header)


def test_without_keys_every_caller_is_anonymous_and_may_pin() -> None:
    caller = KeyRing([], 1).identify(None)
    assert (caller.tenant.name, caller.may_pin) == ("anonymous", True)


def test_concurrency_is_freed_by_leaving() -> None:
    tenant = Tenant("acme", TenantLimits(concurrency=2), 1)
    tenant.enter(0.0)
    tenant.enter(0.0)
    with pytest.raises(RateLimited) as caught:
        tenant.enter(0.0)
    assert caught.value.headers == ((b"retry-after", b"1"),)
    tenant.leave()
    tenant.enter(0.0)


def test_the_rate_refills_and_says_when_to_come_back() -> None:
    tenant = Tenant("acme", TenantLimits(requests_per_minute=12), 1)
    for _ in range(2):  # the burst: a sixth of a minute's worth
        tenant.enter(0.0)
    with pytest.raises(RateLimited) as caught:
        tenant.enter(0.0)
    assert caught.value.headers == ((b"retry-after", b"5"),)
    assert tenant.in_flight == 2
    tenant.enter(5.0)
    with pytest.raises(RateLimited):
        tenant.enter(5.0)


def test_limits_are_shared_between_processes() -> None:
    tenant = Tenant("acme", TenantLimits(concurrency=4), 4)
    tenant.enter(0.0)
    with pytest.raises(RateLimited):
        tenant.enter(0.0)


@pytest.mark.parametrize("limits", [{"concurrency": 3}, {"requests_per_minute": 3}])
def test_a_limit_below_the_number_of_processes_is_refused(limits: dict[str, int]) -> None:
    key = KeySettings(tenant="acme", sha256=digest("k1"), limits=TenantLimits(**limits))
    GatewaySettings(keys=(key,), processes=3, snapshot=Snapshot(epoch=0, models={}))
    with pytest.raises(ValueError, match=rf"keys\[0\].limits.{next(iter(limits))}: found 3 with 4"):
        GatewaySettings(keys=(key,), processes=4, snapshot=Snapshot(epoch=0, models={}))


@given(st.integers(1, 64), st.integers(1, 10_000))
def test_all_processes_together_never_let_more_in_than_the_limit(
    processes: int, limit: int
) -> None:
    assume(limit >= processes)
    limits = TenantLimits(concurrency=limit, requests_per_minute=limit)
    tenants = [Tenant("acme", limits, processes) for _ in range(processes)]
    admitted = 0
    for tenant in tenants:
        for _ in range(limit // processes + 1):
            try:
                tenant.enter(0.0)
            except RateLimited:
                break
            admitted += 1
    assert 1 <= admitted <= limit


def test_a_charge_is_taken_from_the_rate_and_refuses_nothing() -> None:
    tenant = Tenant("acme", TenantLimits(requests_per_minute=12), 1)
    tenant.enter(0.0)
    tenant.charge(0.0)  # the burst of two is used up
    with pytest.raises(RateLimited):
        tenant.enter(0.0)
    tenant.charge(0.0)
    with pytest.raises(RateLimited):
        tenant.enter(5.0)  # what the charge owed comes first
    tenant.enter(10.0)


def test_a_tenant_owes_one_burst_at_most() -> None:
    tenant = Tenant("acme", TenantLimits(requests_per_minute=12), 1)
    for _ in range(100):
        tenant.charge(0.0)
    with pytest.raises(RateLimited) as caught:
        tenant.enter(0.0)
    assert caught.value.headers == ((b"retry-after", b"15"),)
    tenant.enter(15.0)


def test_a_charge_without_a_rate_changes_nothing() -> None:
    tenant = Tenant("acme", TenantLimits(concurrency=1), 1)
    tenant.charge(0.0)
    tenant.enter(0.0)
    assert tenant.in_flight == 1


def test_keys_of_one_tenant_share_its_limits() -> None:
    limits = TenantLimits(concurrency=1)
    ring = KeyRing(
        [
            KeySettings(tenant="acme", sha256=digest("k1"), limits=limits),
            KeySettings(tenant="acme", sha256=digest("k2"), limits=limits),
        ],
        1,
    )
    ring.identify(b"Bearer k1").tenant.enter(0.0)
    with pytest.raises(RateLimited):
        ring.identify(b"Bearer k2").tenant.enter(0.0)


def key(tenant: str, name: str, **limits: int) -> KeySettings:
    return KeySettings(tenant=tenant, sha256=digest(name), limits=TenantLimits(**limits))


def test_a_ring_that_follows_keeps_what_its_tenants_have_in_flight() -> None:
    ring = KeyRing([key("acme", "k1", concurrency=2)], 1)
    tenant = ring.identify(b"Bearer k1").tenant
    tenant.enter(0.0)
    after = ring.followed_by([key("acme", "k2", concurrency=1)])
    with pytest.raises(InvalidKey):
        after.identify(b"Bearer k1")
    with pytest.raises(RateLimited):
        after.identify(b"Bearer k2").tenant.enter(0.0)
    tenant.leave()
    after.identify(b"Bearer k2").tenant.enter(0.0)


def test_a_ring_that_follows_keeps_what_was_used_of_a_rate() -> None:
    ring = KeyRing([key("acme", "k1", requests_per_minute=12)], 1)
    for _ in range(2):  # the whole burst
        ring.identify(b"Bearer k1").tenant.enter(0.0)
    after = ring.followed_by([key("acme", "k1", requests_per_minute=24)])
    tenant = after.identify(b"Bearer k1").tenant
    with pytest.raises(RateLimited):
        tenant.enter(0.0)
    tenant.enter(2.5)  # at the new rate


def test_a_smaller_burst_is_in_force_at_once() -> None:
    ring = KeyRing([key("acme", "k1", requests_per_minute=60)], 1)
    after = ring.followed_by([key("acme", "k1", requests_per_minute=6)])
    after.identify(b"Bearer k1").tenant.enter(0.0)
    with pytest.raises(RateLimited):
        after.identify(b"Bearer k1").tenant.enter(0.0)


def test_a_tenant_that_comes_back_still_has_in_flight_what_it_had() -> None:
    ring = KeyRing([key("acme", "k1", concurrency=1)], 1)
    ring.identify(b"Bearer k1").tenant.enter(0.0)
    again = ring.followed_by([]).followed_by([key("acme", "k1", concurrency=1)])
    with pytest.raises(RateLimited):
        again.identify(b"Bearer k1").tenant.enter(0.0)


def test_a_share_of_a_limit_is_never_nothing() -> None:
    """Keys that came with a table are not refused with it: it may hold a kill."""
    tenant = Tenant("acme", TenantLimits(concurrency=1, requests_per_minute=1), 4)
    tenant.enter(0.0)
    with pytest.raises(RateLimited):
        tenant.enter(0.0)
