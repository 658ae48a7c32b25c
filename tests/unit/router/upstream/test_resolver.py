"""The order in which the addresses of a name are tried."""

import socket

import pytest

from penumbra.router.upstream.resolver import Address, Resolver, in_order


def v4(number: int) -> Address:
    return Address(socket.AF_INET, (f"10.0.0.{number}", 80))


def v6(number: int) -> Address:
    return Address(socket.AF_INET6, (f"2001:db8::{number}", 80, 0, 0))


@pytest.mark.parametrize(
    ("found", "ordered"),
    [
        ([v4(1)], (v4(1),)),
        ([v4(1), v4(2)], (v4(1), v4(2))),
        ([v6(1), v6(2), v4(1), v4(2)], (v6(1), v4(1), v6(2), v4(2))),
        ([v4(1), v4(2), v4(3), v6(1)], (v4(1), v6(1), v4(2), v4(3))),
    ],
)
def test_families_take_turns_and_the_first_begins(
    found: list[Address], ordered: tuple[Address, ...]
) -> None:
    assert in_order(found) == ordered


@pytest.mark.parametrize(
    ("host", "sockaddr"), [("127.0.0.1", ("127.0.0.1", 7)), ("::1", ("::1", 7, 0, 0))]
)
async def test_an_address_needs_no_look_up(host: str, sockaddr: tuple[object, ...]) -> None:
    (address,) = await Resolver(host, 7).addresses()
    assert address.sockaddr == sockaddr
