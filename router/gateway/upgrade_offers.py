"""Upgrades to other protocols that a request offers: ignored, except WebSocket. Pure.

Stock JDK clients offer HTTP/2 (`Upgrade: h2c`) with the first request of a connection, and a server
may ignore an offer (RFC 9110, section 7.8). llhttp stops parsing behind the head of such a request,
so the head is written once more without its offer, and parsed again.
"""

from penumbra.router.errors import BadRequest
from penumbra.router.upstream.port import Headers

_UPGRADE = b"upgrade"


def head_without_offer(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The head of a request without the protocols that it offers.

    Args:
        method: The method.
        target: The request target as it was sent.
        version: HTTP version, e.g. `1.1`.
        headers: Header lines as llhttp read them, names in lower case.

    Raises:
        BadRequest: The request makes no sense without the other protocol.
    """
    if method == b"CONNECT":
        raise BadRequest("CONNECT is not supported: this is no proxy")
    if any(name == _UPGRADE and _names_websocket(value) for name, value in headers):
        raise BadRequest("WebSocket connections are not supported here")
    lines = [b"%b: %b\r\n" % line for line in headers if line[0] != _UPGRADE]
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version.encode(), b"".join(lines))


def _names_websocket(upgrade: bytes) -> bool:
    names = (offer.partition(b"/")[0].strip().lower() for offer in upgrade.split(b","))
    return b"websocket" in names
