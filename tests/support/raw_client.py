"""An HTTP/1.1 client that sends exactly the bytes it is given and reads answers without mercy.

It shares no code with the gateway: an answer with two lengths, a chunk that is not one, or bytes
after the end is an error of the test.
"""

import json
import socket
from dataclasses import dataclass, field
from typing import Any, Self

_BODILESS = frozenset({204, 304})


class BadFraming(AssertionError):
    """The answer is not a well-formed, complete HTTP response."""


@dataclass
class RawResponse:
    """One answer."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    framing: str = "length"
    """`length`, `chunked` or `close`."""
    interim: list[int] = field(default_factory=list)
    """Statuses of 1xx responses before it."""

    def header(self, name: str) -> str | None:
        """The value of a header that appears at most once."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} appears {len(values)} times: {values}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found == name]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The OpenAI error object, checked for its shape."""
        body = self.json()
        assert list(body) == ["error"], body
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
        assert isinstance(body["error"]["message"], str)
        assert body["error"]["message"]
        media_type = (self.header("content-type") or "").split(";")[0]
        assert media_type == "application/json"
        assert self.header("x-request-id")
        return dict(body["error"])

    @property
    def events(self) -> list[bytes]:
        """The whole events of a stream, each with its blank line."""
        *events, rest = self.body.split(b"\n\n")
        assert not rest, f"bytes after the last event: {rest!r}"
        return [event + b"\n\n" for event in events]


class RawClient:
    """One connection to `127.0.0.1:port`."""

    def __init__(self, port: int, *, timeout: float = 30.0, receive_buffer: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(("127.0.0.1", port))
        except OSError:
            self._socket.close()
            raise
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._is_at_eof = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def socket(self) -> socket.socket:
        return self._socket

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_request(
        self,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        method: str = "POST",
    ) -> None:
        self.send(request_bytes(path, body, headers, method=method))

    def read_response(self, *, has_body: bool = True) -> RawResponse:
        """The next final response, whole."""
        response = self.read_head()
        if has_body and response.status not in _BODILESS:
            response.body = self._read_body(response)
        return response

    def read_head(self) -> RawResponse:
        """The next final head; its body is left to be read."""
        interim: list[int] = []
        while True:
            response = _parse_head(self.read_until(b"\r\n\r\n"))
            if response.status >= 200:
                response.interim = interim
                return response
            interim.append(response.status)

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to the first `mark`, including it."""
        while (end := self._buffer.find(mark)) < 0:
            if not self._receive():
                raise BadFraming(f"closed before {mark!r}: {bytes(self._buffer)[-200:]!r}")
        return self._take(end + len(mark))

    def read_to_eof(self) -> bytes:
        """Everything until the other side closes."""
        while self._receive():
            pass
        return self._take(len(self._buffer))

    def is_closed(self) -> bool:
        """Whether the other side closes without another byte; waits for the time-out at most."""
        return not self._buffer and not self._receive() and not self._buffer

    def read_responses_to_eof(self) -> list[RawResponse]:
        """Every whole response until the connection is closed."""
        responses = []
        while self._buffer or self._receive():
            responses.append(self.read_response())
        return responses

    def _read_body(self, response: RawResponse) -> bytes:
        lengths = response.all("content-length")
        codings = response.all("transfer-encoding")
        if codings:
            if codings != ["chunked"] or lengths:
                raise BadFraming(f"transfer-encoding {codings}, content-length {lengths}")
            response.framing = "chunked"
            return b"".join(self.read_chunks())
        if lengths:
            if len(lengths) != 1 or not lengths[0].isdigit():
                raise BadFraming(f"content-length {lengths}")
            return self._read_exactly(int(lengths[0]))
        response.framing = "close"
        return self.read_to_eof()

    def read_chunks(self) -> list[bytes]:
        """The chunks of a body up to its end."""
        chunks = []
        while data := self.read_chunk():
            chunks.append(data)
        return chunks

    def read_chunk(self) -> bytes:
        """The next chunk; empty at the end of the body."""
        size = int(self.read_until(b"\r\n")[:-2], 16)
        data = self._read_exactly(size + 2)
        if data[size:] != b"\r\n":
            raise BadFraming(f"a chunk that does not end: {data[-20:]!r}")
        return data[:size]

    def _read_exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            if not self._receive():
                raise BadFraming(f"closed after {len(self._buffer)} of {length} bytes")
        return self._take(length)

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    def _receive(self) -> bool:
        if self._is_at_eof:
            return False
        try:
            data = self._socket.recv(262144)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
        self._is_at_eof = not data
        self._buffer += data
        return bool(data)


def request_bytes(
    path: str, body: bytes = b"", headers: dict[str, str] | None = None, *, method: str = "POST"
) -> bytes:
    """A plain request with a content-length, as any client sends it."""
    fields = {"host": "gateway.test", **(headers or {})}
    if body or method == "POST":
        fields |= {"content-type": "application/json", "content-length": str(len(body))}
        fields |= headers or {}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _parse_head(data: bytes) -> RawResponse:
    first, *lines = data.decode("latin-1")[:-4].split("\r\n")
    version, status, _ = [*first.split(" ", 2), ""][:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or not status.isdigit():
        raise BadFraming(f"not a status line: {first!r}")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
            raise BadFraming(f"not a header line: {line!r}")
        headers.append((name.lower(), value.strip()))
    return RawResponse(int(status), version, headers)
