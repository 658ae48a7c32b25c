"""Reads the kernel's state of a loopback connection: has the other end read what was sent?"""

import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = 1
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")
_QUERY = struct.Struct("=BBBxI")
_QUEUE = struct.Struct("=I")
_QUEUE_OFFSET = 16 + 4 + 48 + 4
"""Of the receive queue in the answer: behind both headers, the socket's identity and a timer."""


def bytes_waiting_at_peer(sock: socket.socket) -> int:
    """Bytes that were sent on `sock` and lie unread in the other end's socket, loopback IPv4 only.

    Asks the kernel's socket diagnostics (sock_diag(7)). Where there are none the answer is 0: a
    test that splits its writes then still tests the same bytes, only less surely one read each.
    """
    try:
        query = _query(sock.getpeername(), sock.getsockname())
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.send(query)
            answer = kernel.recv(4096)
    except (OSError, AttributeError):
        return 0
    if len(answer) < _QUEUE_OFFSET + 4 or _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return 0
    return int(_QUEUE.unpack_from(answer, _QUEUE_OFFSET)[0])


def _query(owner: tuple[str, int], other: tuple[str, int]) -> bytes:
    """A question for the socket that is bound to `owner` and connected to `other`."""
    ports = struct.pack("!HH", owner[1], other[1])
    addresses = b"".join(socket.inet_aton(host).ljust(16, b"\0") for host in (owner[0], other[0]))
    interface = struct.pack("=I", 0)
    what = _QUERY.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _ALL_STATES)
    body = what + ports + addresses + interface + _NO_COOKIE
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0) + body
