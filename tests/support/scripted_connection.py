"""One connection of a scripted upstream: what came is kept, and any byte can be sent back.

Reading order: RecordedRequest, Exchange, Connection.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from tests.support.tcp import bytes_waiting_at_peer

_RST_ON_CLOSE = struct.pack("ii", 1, 0)


class PeerGone(Exception):
    """The other side closed the connection while the behaviour was still sending."""


@dataclass
class RecordedRequest:
    """One request exactly as it arrived."""

    head: bytes
    """Request line and header lines, with their line ends and the blank line."""
    body: bytes
    """De-chunked."""
    raw_body: bytes
    """As it came, chunk framing included."""
    connection: int
    """Which connection it came on; each one has a number of its own."""
    sent_bytes: int = 0
    """How much the behaviour has sent in answer, where it keeps count."""
    disconnected: threading.Event = field(default_factory=threading.Event)
    """Set when the peer closes the connection, at any time after."""
    finished: threading.Event = field(default_factory=threading.Event)
    """Set when the behaviour is done."""

    @property
    def method(self) -> str:
        return self.head.split(b" ", 2)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case, in order."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        pairs = (line.split(":", 1) for line in lines)
        return [(name.lower(), value.strip()) for name, value in pairs]

    def header(self, name: str) -> str | None:
        """The value of a header that appears at most once."""
        values = [value for found, value in self.headers if found == name]
        assert len(values) <= 1, f"{name} appears {len(values)} times"
        return values[0] if values else None


class Exchange:
    """One request and the connection that it came on."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.request: RecordedRequest
        self.sent_bytes = 0

    async def send(self, data: bytes) -> None:
        """Write, and wait while the peer does not read."""
        if self._connection.lost.is_set() or self._connection.transport.is_closing():
            raise PeerGone
        self._connection.transport.write(data)
        self.sent_bytes += len(data)
        await self._connection.can_write.wait()

    async def send_apart(self, data: bytes) -> None:
        """Send, and let the peer take it from its socket: one read of its own."""
        await self.send(data)
        await self.all_read()

    async def all_read(self) -> None:
        """Wait until the peer has read what was sent."""
        sock = self._connection.transport.get_extra_info("socket")
        # The kernel has no event for it.
        while not self._connection.lost.is_set() and bytes_waiting_at_peer(sock):  # noqa: ASYNC110
            await asyncio.sleep(0)

    def fin(self) -> None:
        """Close in order, after what was sent."""
        self._connection.transport.close()

    def rst(self) -> None:
        """Close with a reset; what the peer has not read is lost."""
        sock = self._connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._connection.transport.abort()

    async def peer_closed(self) -> None:
        """Wait until the peer closes the connection."""
        await self._connection.lost.wait()


Behaviour = Callable[[Exchange], Awaitable[None]]


class Owner(Protocol):
    """Interface of the server that a connection uses."""

    async def answer(self, exchange: Exchange) -> None: ...
    def adopt(self, connection: "Connection") -> None: ...
    def drop(self, connection: "Connection") -> None: ...
    def failed(self, error: Exception) -> None: ...


class Connection(asyncio.Protocol):
    """One accepted connection; serves requests one after the other."""

    transport: asyncio.Transport

    def __init__(self, owner: Owner, number: int) -> None:
        self._owner = owner
        self._number = number
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._current: RecordedRequest | None = None
        self.lost = asyncio.Event()
        self.closed = asyncio.Event()
        self.can_write = asyncio.Event()
        self.can_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._owner.adopt(self)
        self.task = asyncio.ensure_future(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> None:
        self._gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        self.closed.set()
        self._owner.drop(self)

    def pause_writing(self) -> None:
        self.can_write.clear()

    def resume_writing(self) -> None:
        self.can_write.set()

    def _gone(self) -> None:
        self.lost.set()
        self._arrived.set()
        self.can_write.set()
        if self._current is not None:
            self._current.disconnected.set()

    async def _serve(self) -> None:
        try:
            while not self.transport.is_closing():
                exchange = Exchange(self)
                exchange.request = await self._read_request()
                await self._owner.answer(exchange)
        except PeerGone:
            self.transport.close()
        except Exception as error:  # noqa: BLE001  -- a mistake of the test, shown by `reset`
            self._owner.failed(error)
            self.transport.abort()

    async def shut(self) -> None:
        """Close in order, whatever is under way."""
        self.task.cancel()
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        await self.closed.wait()

    async def _read_request(self) -> RecordedRequest:
        end = await self._find(b"\r\n\r\n", 0)
        head = bytes(self._buffer[: end + 4])
        del self._buffer[: end + 4]
        request = RecordedRequest(head, b"", b"", self._number)
        if request.header("transfer-encoding") is not None:
            request.raw_body, request.body = await self._read_chunks()
        else:
            request.body = request.raw_body = await self._take(
                int(request.header("content-length") or 0)
            )
        self._current = request
        if self.lost.is_set():
            request.disconnected.set()
        return request

    async def _read_chunks(self) -> tuple[bytes, bytes]:
        raw, body = b"", b""
        while True:
            end = await self._find(b"\r\n", 0)
            line = await self._take(end + 2)
            size = int(line.split(b";")[0], 16)
            data = await self._take(size + 2)
            raw, body = raw + line + data, body + data[:-2]
            if size == 0:
                return raw, body

    async def _find(self, mark: bytes, start: int) -> int:
        while (found := self._buffer.find(mark, start)) < 0:
            await self._more()
        return found

    async def _take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            await self._more()
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    async def _more(self) -> None:
        if self.lost.is_set():
            raise PeerGone
        self._arrived.clear()
        await self._arrived.wait()
