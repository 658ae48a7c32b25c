"""Addresses as text: `HOST:PORT`, and the hosts that reach only this machine. Pure."""

import ipaddress

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - to compare with


def announced_address(host: str, port: int, announce: str | None = None) -> str:
    """Address at which other machines reach a bound port.

    Args:
        host: Address that is bound.
        port: Port that is bound.
        announce: Host to name instead of it.

    Returns:
        `HOST:PORT`; or `:PORT` if every address is bound, when only the reader can tell the host.
    """
    if announce is None and host in _EVERY_ADDRESS:
        return f":{port}"
    return join_host_port(announce or host, port)


def join_host_port(host: str, port: int) -> str:
    """Join host and port to `HOST:PORT`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def local_host(host: str) -> str:
    """Host at which processes of this machine reach a port that is bound to `host`."""
    return "127.0.0.1" if host in _EVERY_ADDRESS else host


def is_loopback(host: str) -> bool:
    """Whether a host name or address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
