"""Listening sockets of a process, bound before anything else starts."""

import socket

BACKLOG = 2048


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
