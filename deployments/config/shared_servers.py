"""Finds variants that name one server: a build would be compared with itself. Pure.

Two spellings of one address count as one: the case of the host, a port that is the scheme's own, a
slash or `/v1` at the end, and `localhost`.
"""

import ipaddress
from collections.abc import Iterator, Mapping

from penumbra.router.flags.rule_checks import problem
from penumbra.router.upstream.base_url import read_base_url

_LOCALHOST = "localhost"
_LOOPBACK = "127.0.0.1"

Server = tuple[str, int, str]
"""Host, port and path in front of the routes."""


def server_of(url: str) -> Server:
    """The server that a base URL names, the same for every spelling of it.

    Raises:
        ValueError: The URL is no base URL.
    """
    found = read_base_url(url)
    # http and https cannot be spoken on one port: the scheme makes no other server.
    return _host(found.host), found.port, found.prefix


def shared_server_problems(urls: Mapping[str, str]) -> Iterator[str]:
    """Find the variants of one model whose server an earlier variant names.

    Args:
        urls: Variant -> base URL, in the order of the configuration.
    """
    owners: dict[Server, str] = {}
    for variant, url in urls.items():
        owner = owners.setdefault(server_of(url), variant)
        if owner != variant:
            yield problem(
                f"variants.{variant}.url",
                url,
                f"another server than that of {owner}: a build would be compared with itself",
            )


def _host(name: str) -> str:
    host = name.lower().removesuffix(".")
    if host == _LOCALHOST:
        return _LOOPBACK
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
