"""HTTP heads as bytes: keeps the end-to-end headers of a request and of an answer. Pure."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from penumbra.router.upstream.port import Headers

_HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"trailers", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_NOT_UPSTREAM = _HOP_BY_HOP | {
    b"authorization", b"cookie", b"host", b"content-length", b"expect", b"x-request-id",
    b"x-penumbra-variant", b"x-penumbra-slice",
}  # fmt: skip
_NOT_DOWNSTREAM = _HOP_BY_HOP | {b"content-length", b"x-request-id", b"server", b"set-cookie"}
_PRIVATE = b"x-penumbra-"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON: Headers = [(b"content-type", b"application/json")]
"""Header lines of an answer of the gateway's own."""
_ID_LENGTH = 128
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, _phrase)
    for status in range(100, 600)
    for _phrase in (
        (HTTPStatus(status).phrase.encode() if status in HTTPStatus._value2member_map_ else b""),
    )
}


def is_valid_request_id(value: bytes) -> bool:
    """Whether a client's request id may be used: 1 to 128 printable ASCII bytes without spaces."""
    if not 0 < len(value) <= _ID_LENGTH or not value.isascii():
        return False
    text = value.decode("ascii")
    return text.isprintable() and " " not in text


def upstream_headers(headers: dict[bytes, bytes], request_id: bytes) -> bytes:
    """Make an upstream's header lines from the client's headers, with the request id added."""
    dropped = _NOT_UPSTREAM
    nominated = headers.get(b"connection")
    if nominated is not None:
        dropped = dropped | _nominated(nominated)
    lines = [
        b"%b: %b\r\n" % line
        for line in headers.items()
        if line[0] not in dropped and not line[0].startswith(_PRIVATE)
    ]
    lines.append(b"x-request-id: %b\r\n" % request_id)
    return b"".join(lines)


def answer_head(status: int, headers: Headers, end: bytes) -> bytes:
    """Make the head of an answer: status line, the upstream's end-to-end headers, then `end`."""
    dropped = _NOT_DOWNSTREAM
    for name, value in headers:
        if name == b"connection":
            dropped = dropped | _nominated(value)
    lines = [_STATUS_LINES[status]]
    lines += [
        b"%b: %b\r\n" % line
        for line in headers
        if line[0] not in dropped and not line[0].startswith(_PRIVATE)
    ]
    lines.append(end)
    return b"".join(lines)


def last_answer(status: int, body: bytes, request_id: bytes) -> bytes:
    """Make a whole JSON answer that ends the connection, for a request that cannot be read."""
    end = b"x-request-id: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return answer_head(status, JSON, end % (request_id, len(body))) + body


def _nominated(connection: bytes) -> frozenset[bytes]:
    """The headers that a `Connection` header makes hop-by-hop."""
    return frozenset(name.strip().lower() for name in connection.split(b","))


class TextHeaders(Mapping[str, str]):
    """Header values as text, decoded on access; names in lower case."""

    __slots__ = ("_headers",)

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        return self._headers[name.encode("latin-1")].decode("latin-1")

    def get(self, name: str, default: Any = None) -> Any:
        """See Mapping; a missing header costs no exception."""
        value = self._headers.get(name.encode("latin-1"))
        return default if value is None else value.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._headers)

    def __len__(self) -> int:
        return len(self._headers)
