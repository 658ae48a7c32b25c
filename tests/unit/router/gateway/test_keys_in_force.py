"""Keys that a routing table brings: in force for the next request of every connection."""

import hashlib
from typing import NoReturn

import pytest

from penumbra.router.errors import InvalidKey
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.flags.tenant_keys import KeySettings
from penumbra.router.gateway.keys_in_force import KeysInForce
from penumbra.router.settings import GatewaySettings
from tests.support.wire import TABLE, Wire, WireGateway, chat, request, turns, wire_gateway


def key(name: str) -> KeySettings:
    return KeySettings(tenant=name, sha256=hashlib.sha256(name.encode()).hexdigest())


async def ask(wire: Wire, name: str) -> bytes:
    """Status line of the answer to one more request on a connection."""
    before = len(wire.sent)
    wire.feed(request(chat(), key=name))
    await turns(40)
    return wire.sent[before:].split(b"\r\n", 1)[0]


def tell(gateway: WireGateway, *names: str) -> None:
    keys = tuple(key(name) for name in names)
    table = gateway.gateway.snapshot
    gateway.gateway.apply(table.model_copy(update={"epoch": table.epoch + 1, "keys": keys}))


async def test_a_revoked_key_is_refused_on_a_connection_that_it_had_used() -> None:
    gateway = wire_gateway()
    wires = {name: gateway.connect() for name in ("acme", "other")}
    for name, wire in wires.items():
        assert await ask(wire, name) == b"HTTP/1.1 200 OK"
    tell(gateway, "acme", "new")
    assert await ask(wires["other"], "other") == b"HTTP/1.1 401 Unauthorized"
    assert await ask(wires["acme"], "acme") == b"HTTP/1.1 200 OK"
    assert await ask(wires["acme"], "new") == b"HTTP/1.1 200 OK"


async def test_a_table_without_keys_leaves_those_that_are_in_force() -> None:
    gateway = wire_gateway()
    gateway.gateway.apply(TABLE.model_copy(update={"epoch": 2}))
    assert await ask(gateway.connect(), "acme") == b"HTTP/1.1 200 OK"
    assert await ask(gateway.connect(), "new") == b"HTTP/1.1 401 Unauthorized"
    tell(gateway, "new")
    gateway.gateway.apply(TABLE.model_copy(update={"epoch": 4}))
    assert await ask(gateway.connect(), "acme") == b"HTTP/1.1 401 Unauthorized"
    assert await ask(gateway.connect(), "new") == b"HTTP/1.1 200 OK"


async def test_a_key_is_revoked_by_a_table_that_cannot_be_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = wire_gateway()

    def refuse(table: Snapshot) -> NoReturn:
        raise ValueError(f"ca_file: no certificate in epoch {table.epoch}")

    monkeypatch.setattr(gateway.gateway._pools, "prepare", refuse)
    with pytest.raises(ValueError, match="ca_file"):
        tell(gateway, "new")
    assert gateway.gateway.snapshot.epoch == TABLE.epoch
    assert await ask(gateway.connect(), "acme") == b"HTTP/1.1 401 Unauthorized"


@pytest.mark.parametrize(("host", "is_let_in"), [("127.0.0.1", True), ("0.0.0.0", False)])  # noqa: S104
def test_without_keys_only_callers_of_this_machine_are_let_in(host: str, is_let_in: bool) -> None:
    settings = GatewaySettings(host=host, keys=(key("acme"),), snapshot=TABLE)
    keys = KeysInForce(settings)
    keys.take(())
    for header in (None, b"Bearer acme"):
        if is_let_in:
            assert keys.identify(header).tenant.name == "anonymous"
        else:
            with pytest.raises(InvalidKey):
                keys.identify(header)
