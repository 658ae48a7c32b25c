"""A server whose answers are bytes, on one event loop with the test."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

LENGTH = b"content-length: "


@dataclass
class RawServer:
    """A running server, with the requests that it got."""

    url: str = ""
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    """Head and body of each request."""
    connections: list[asyncio.StreamWriter] = field(default_factory=list)


Handler = Callable[[RawServer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request that was read; returns whether the connection stays open."""


def answer(body: bytes = b"{}", status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    """A whole answer of a known length."""
    return b"HTTP/1.1 %b\r\n%b%b%d\r\n\r\n%b" % (status, headers, LENGTH, len(body), body)


def always(*pieces: bytes, stays: bool = True) -> Handler:
    """Answer every request with these bytes, each in a write of its own."""

    async def handler(
        _server: RawServer, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return stays

    return handler


@contextlib.asynccontextmanager
async def raw_server(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    reads_bodies: bool = True,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[RawServer]:
    """Serve until the end of the block."""
    server = RawServer()

    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        server.connections.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while await _serve_one(server, handler, reader, writer, reads_bodies):
                pass
        writer.close()

    listening = await asyncio.start_server(serve, host, port, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    server.url = f"{'https' if tls else 'http'}://{shown}:{server.port}"
    try:
        yield server
    finally:
        listening.close()
        for writer in server.connections:
            writer.transport.abort()
        await asyncio.wait_for(asyncio.gather(*filter(None, tasks)), 5)
        await listening.wait_closed()


async def _serve_one(
    server: RawServer,
    handler: Handler,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    reads_bodies: bool,
) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(LENGTH)[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length) if reads_bodies else b""
    server.requests.append(head + body)
    return await handler(server, reader, writer)
