"""Refuses request heads that two HTTP parsers in a row might read in two ways. Pure.

llhttp, which has parsed the head, already refuses conflicting lengths, bare line feeds, spaces
before colons and broken chunks. The checks here are the remaining ones.
"""

from penumbra.router.errors import BadRequest
from penumbra.router.upstream.port import Headers

_ONCE = (b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type")


def check_head(target: bytes, version: str, headers: Headers, by_name: dict[bytes, bytes]) -> None:
    """Check one request head.

    Args:
        target: The request target as it was sent.
        version: HTTP version, e.g. `1.1`.
        headers: Header lines, names in lower case.
        by_name: The same by name; where a name repeats, its last line.

    Raises:
        BadRequest: The head is ambiguous; the message says in which way.
    """
    if version not in ("1.1", "1.0"):
        raise BadRequest(f"HTTP/{version} is not spoken here, only HTTP/1.1 and HTTP/1.0")
    if not target.startswith(b"/") or b"#" in target:
        raise BadRequest("the request target must be a path (origin form)")
    if version == "1.1" and b"host" not in by_name:
        raise BadRequest("an HTTP/1.1 request needs a Host header")
    if len(by_name) != len(headers):
        _refuse_repeated([name for name, _ in headers])
    if by_name.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise BadRequest("the only transfer-encoding understood is `chunked`")


def _refuse_repeated(names: list[bytes]) -> None:
    for name in _ONCE:
        if names.count(name) > 1:
            raise BadRequest(f"the header {name.decode()} appears twice")
