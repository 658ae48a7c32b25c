"""HTTP heads as bytes: keeps the end-to-end headers of a request and of an answer. Pure."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from penumbra.router.upstream.port import Headers

_HOP_BY_HOP = frozenset(
    {
        b"connection", b"http2-settings", b"keep-alive", b"proxy-authenticate",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"trailers",
        b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
# Without `accept-encoding` no engine or proxy compresses an answer, which the gateway has to read.
_NOT_UPSTREAM = _HOP_BY_HOP | {
    b"accept-encoding", b"authorization", b"content-length", b"cookie", b"expect", b"host",
    b"x-api-key", b"x-penumbra-slice", b"x-penumbra-variant", b"x-request-id",
}  # fmt: skip
_NOT_DOWNSTREAM = _HOP_BY_HOP | {
    b"access-control-allow-credentials", b"access-control-allow-headers",
    b"access-control-allow-methods", b"access-control-allow-origin",
    b"access-control-expose-headers", b"access-control-max-age", b"content-length", b"server",
    b"set-cookie", b"x-request-id",
}  # fmt: skip
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


def upstream_headers(headers: Headers, by_name: dict[bytes, bytes], request_id: bytes) -> bytes:
    """Make an upstream's header lines from the client's.

    Args:
        headers: The client's header lines in order, names in lower case.
        by_name: The same by name.
        request_id: The id of the request; it is added.
    """
    dropped = _NOT_UPSTREAM
    if b"connection" in by_name:
        dropped = _with_nominated(dropped, headers)
    return _kept_lines(headers, dropped) + b"x-request-id: %b\r\n" % request_id


def answer_head(status: int, headers: Headers, end: bytes) -> bytes:
    """Make the head of an answer: status line, the upstream's end-to-end headers, then `end`."""
    dropped = _with_nominated(_NOT_DOWNSTREAM, headers)
    return _STATUS_LINES[status] + _kept_lines(headers, dropped) + end


def end_to_end(headers: Headers) -> Headers:
    """The header lines of an upstream's answer that its client gets."""
    dropped = _with_nominated(_NOT_DOWNSTREAM, headers)
    return [line for line in headers if line[0] not in dropped and not line[0].startswith(_PRIVATE)]


def _kept_lines(headers: Headers, dropped: frozenset[bytes]) -> bytes:
    lines = b""
    for line in headers:  # a few: for them this is cheaper than a list that is joined
        if line[0] not in dropped:
            lines += b"%b: %b\r\n" % line
    if _PRIVATE in lines:
        kept = [line for line in headers if not line[0].startswith(_PRIVATE)]
        return lines if len(kept) == len(headers) else _kept_lines(kept, dropped)
    return lines


def last_answer(status: int, body: bytes, request_id: bytes) -> bytes:
    """Make a whole JSON answer that ends the connection, for a request that cannot be read."""
    end = b"x-request-id: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return answer_head(status, JSON, end % (request_id, len(body))) + body


def _with_nominated(dropped: frozenset[bytes], headers: Headers) -> frozenset[bytes]:
    """Names of headers that stay behind, those that the `Connection` lines nominate included."""
    for name, value in headers:
        if name == b"connection":
            dropped = dropped | {nominated.strip().lower() for nominated in value.split(b",")}
    return dropped


def text_of(value: bytes) -> str:
    """Decode a header value: UTF-8, as clients and proxies write it, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class TextHeaders(Mapping[str, str]):
    """Header values as text, decoded on access; names in lower case."""

    __slots__ = ("_headers",)

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        return text_of(self._headers[name.encode("latin-1")])

    def get(self, name: str, default: Any = None) -> Any:
        """See Mapping; a missing header costs no exception."""
        value = self._headers.get(name.encode("latin-1"))
        return default if value is None else text_of(value)

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._headers)

    def __len__(self) -> int:
        return len(self._headers)
