"""Listening sockets and addresses of a process; sockets are bound before anything else starts."""

import ipaddress
import socket

BACKLOG = 2048
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - to compare with


def bind(host: str, port: int, setting: str, *, is_shared: bool = False) -> socket.socket:
    """Bind a listening TCP socket.

    Args:
        host: Address to bind.
        port: Port to bind; 0 takes any that is free.
        setting: Name of the setting that the port comes from, for the error message.
        is_shared: Whether other processes may listen on the same port (SO_REUSEPORT).

    Raises:
        OSError: The port cannot be bound; the message names the address and the setting.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(
            error.errno, f"cannot bind {host}:{port} ({setting}): {error.strerror}"
        ) from error
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def announced(host: str, port: int, announce: str | None = None) -> str:
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
    return joined(announce or host, port)


def joined(host: str, port: int) -> str:
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
