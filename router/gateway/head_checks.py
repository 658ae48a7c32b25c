"""Refuses request heads that two HTTP parsers in a row might read in two ways. Pure.

llhttp, which has parsed the head, already refuses conflicting lengths, bare line feeds, spaces
before colons and broken chunks. The checks here are the remaining ones.
"""

from penumbra.router.errors import BadRequest
from penumbra.router.upstream.port import Headers

_ONCE = (
    b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type",
    b"content-encoding", b"x-api-key",
)  # fmt: skip
_PORTS = {b"http": b"80", b"https": b"443"}
"""Scheme of an absolute target -> its default port."""


def check_head(version: str, headers: Headers, by_name: dict[bytes, bytes]) -> None:
    """Check one request head, its target excepted.

    Args:
        version: HTTP version, e.g. `1.1`.
        headers: Header lines, names in lower case.
        by_name: The same by name; where a name repeats, its last line.

    Raises:
        BadRequest: The head is ambiguous; the message says in which way.
    """
    if version not in ("1.1", "1.0"):
        raise BadRequest(f"HTTP/{version} is not spoken here, only HTTP/1.1 and HTTP/1.0")
    if version == "1.1" and b"host" not in by_name:
        raise BadRequest("an HTTP/1.1 request needs a Host header")
    if len(by_name) != len(headers):
        _refuse_repeated([name for name, _ in headers])
    coding = by_name.get(b"transfer-encoding")
    if coding is not None and coding.lower() != b"chunked":
        raise BadRequest("the only transfer-encoding understood is `chunked`")


def origin_form(target: bytes, host: bytes | None) -> bytes:
    """The path of a request target, query included, of one that clients send to a proxy as well.

    Args:
        target: The request target as it was sent.
        host: The `host` header; it must name the server that the target names.

    Raises:
        BadRequest: The target names no path, or another server.
    """
    if b"#" in target:
        raise BadRequest("the request target must be a path without a fragment")
    if target.startswith(b"/"):
        return target
    scheme, mark, rest = target.partition(b"://")
    port = _PORTS.get(scheme.lower())
    if not mark or port is None:
        raise BadRequest("the request target must be a path, or an http URL of this server")
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority = rest[:end]
    if host is not None and _server(authority, port) != _server(host, port):
        raise BadRequest("the request target names another server than the Host header")
    if b"@" in authority or not authority:
        raise BadRequest("the request target must name the server without credentials")
    path = rest[end:]
    return path if path.startswith(b"/") else b"/" + path


def _server(authority: bytes, port: bytes) -> tuple[bytes, bytes]:
    """Host in lower case and port of an authority; `port` where it names none."""
    host, colon, given = authority.lower().rpartition(b":")
    if not colon or given.endswith(b"]"):
        return authority.lower(), port
    return host, given or port


def _refuse_repeated(names: list[bytes]) -> None:
    for name in _ONCE:
        if names.count(name) > 1:
            raise BadRequest(f"the header {name.decode()} appears twice")
