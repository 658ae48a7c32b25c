"""The `Upstream` port over HTTP/1.1: any vLLM-compatible server, ours behind HAProxy or not.

`HttpUpstream` is the pool of one variant; `Connection` is one keep-alive connection, parsed by
llhttp. A connection goes back to the pool only after an answer that ended exactly where its framing
says; anything else closes it, so that no byte of one answer can reach the next client.
"""

import asyncio
import logging
from collections import deque
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from monitoring.vocabulary import Outcome
from router.ports import Headers, Receiver, Stream, UpstreamRequest
from router.upstream_probe import UpstreamProbe

log = logging.getLogger(__name__)

_JOIN_LIMIT_BYTES = 64 * 1024
_HEAD_LIMIT_BYTES = 64 * 1024
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200


class HttpUpstream(UpstreamProbe):
    """A variant that answers at a URL.

    Args:
        model: Public model name, as the server knows it.
        url: Base URL, http only, e.g. `http://127.0.0.1:8000/demo-int8`.
        api_key: Sent as bearer token, where the server wants one.
        connect_seconds: Limit for opening a connection.
        connections: Open connections at most, busy and idle.

    Raises:
        ValueError: `url` is not an absolute http URL.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        api_key: str | None = None,
        connect_seconds: float = 2.0,
        connections: int = 4096,
    ) -> None:
        super().__init__(model)
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"variant url is {url!r}, wanted http://HOST[:PORT][/PREFIX]")
        self.url = url
        self._host, self._port = parts.hostname, parts.port or 80
        self._prefix = parts.path.rstrip("/").encode("ascii")
        authorization = f"authorization: Bearer {api_key}\r\n" if api_key else ""
        self._fixed = f" HTTP/1.1\r\nhost: {parts.netloc}\r\n{authorization}".encode("latin-1")
        self._connect_seconds = connect_seconds
        self._limit = connections
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def open_connections(self) -> int:
        """Connections now open or being opened."""
        return len(self._open) + len(self._connecting)

    def stream(self, request: UpstreamRequest, receiver: Receiver) -> Stream:
        """See `Upstream.stream`: pooled, a fresh connection where none is idle."""
        wire = self._wire(request)
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                exchange = _Exchange(self, wire, receiver)
                exchange.connection = connection
                connection.begin(exchange)
                return exchange
        exchange = _Exchange(self, wire, receiver)
        exchange.is_retriable = False
        self.connect_for(exchange)
        return exchange

    def connect_for(self, exchange: "_Exchange") -> None:
        """Open a connection and send `exchange` on it."""
        task = asyncio.get_running_loop().create_task(self._connect(exchange))
        exchange.connecting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: "_Exchange") -> None:
        if self.open_connections > self._limit:
            exchange.fail(Outcome.REFUSED, "connection limit reached")
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._host, self._port
                )
        except TimeoutError:
            exchange.fail(Outcome.REFUSED, "connect timed out")
        except OSError as error:
            exchange.fail(Outcome.REFUSED, f"connect failed: {error.strerror or 'no address'}")
        else:
            self._hand_over(connection, exchange)

    def _hand_over(self, connection: "Connection", exchange: "_Exchange") -> None:
        exchange.connecting = None
        if exchange.is_over:
            self.release(connection)
            return
        exchange.connection = connection
        connection.begin(exchange)

    def release(self, connection: "Connection") -> None:
        """Take back a connection whose answer ended cleanly."""
        if self._is_closed:
            connection.close()
        else:
            self._idle.append(connection)

    def opened(self, connection: "Connection") -> None:
        """A connection was made."""
        self._open.add(connection)

    def lost(self, connection: "Connection") -> None:
        """A connection is gone."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close idle connections now and busy ones when their answer ends."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _wire(self, request: UpstreamRequest) -> tuple[bytes, ...]:
        body = request.body
        head = b"%b %b%b%b%bcontent-length: %d\r\n\r\n" % (
            request.method,
            self._prefix,
            request.path,
            self._fixed,
            request.headers,
            len(body),
        )
        return (head + body,) if len(body) <= _JOIN_LIMIT_BYTES else (head, body)


class _Exchange:
    """One request at one upstream: the `Stream` that its caller holds."""

    __slots__ = (
        "connecting",
        "connection",
        "is_over",
        "is_retriable",
        "receiver",
        "upstream",
        "wire",
    )

    def __init__(self, upstream: HttpUpstream, wire: tuple[bytes, ...], receiver: Receiver) -> None:
        self.upstream = upstream
        self.wire = wire
        self.receiver = receiver
        self.connection: Connection | None = None
        self.connecting: asyncio.Task[None] | None = None
        # A kept-alive connection may be closed by its server at any moment: if it is, before one
        # byte of the answer, the request is sent once more on a fresh one.
        self.is_retriable = True
        self.is_over = False

    def abort(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self.connecting is not None:
            self.connecting.cancel()
        if self.connection is not None:
            self.connection.abort()

    def pause(self) -> None:
        if self.connection is not None and not self.is_over:
            self.connection.transport.pause_reading()

    def resume(self) -> None:
        if self.connection is not None and not self.is_over:
            self.connection.transport.resume_reading()

    def fail(self, outcome: Outcome, detail: str) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.receiver.on_fail(outcome, detail)

    def broke_off(self, connection: "Connection") -> None:
        """The connection was closed by the other side, or broke."""
        if self.is_over:
            return
        if connection.has_begun:
            self.fail(Outcome.DIED, "connection closed within the answer")
        elif self.is_retriable:
            self.is_retriable = False
            self.connection = None
            self.upstream.connect_for(self)
        else:
            self.fail(Outcome.REFUSED, "connection closed before an answer")


class _ResponseParser(Protocol):
    """What is used of `httptools.HttpResponseParser`, which has no types of its own."""

    def feed_data(self, data: bytes) -> None: ...
    def get_http_version(self) -> str: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


class Connection(asyncio.Protocol):
    """One keep-alive connection to an upstream."""

    transport: asyncio.Transport

    def __init__(self, pool: HttpUpstream) -> None:
        self._pool = pool
        self._exchange: _Exchange | None = None
        self._parser = cast("_ResponseParser", httptools.HttpResponseParser(self))
        self._headers: Headers = []
        self._head_bytes = 0
        self._status = 0
        self._is_complete = False
        self._is_poisoned = False
        self._is_kept_alive = False
        self.has_begun = False

    @property
    def is_usable(self) -> bool:
        """Whether a request can be sent on it."""
        return not self.transport.is_closing() and not self._is_poisoned

    def begin(self, exchange: _Exchange) -> None:
        """Send the request of `exchange`; its answer goes to its receiver."""
        self._exchange = exchange
        self.has_begun = self._is_complete = False
        self._head_bytes = 0
        write = self.transport.write
        for piece in exchange.wire:
            write(piece)

    def abort(self) -> None:
        """Close at once, with what is in flight."""
        self._exchange = None
        self._is_poisoned = True
        self.transport.abort()

    def close(self) -> None:
        """Close it, idle."""
        self._is_poisoned = True
        self.transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        exchange = self._exchange
        if exchange is None:  # bytes that no request asked for
            self.close()
            return
        if not self.has_begun:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            # Not the upstream's fault: one of our own callbacks raised.
            log.error("answer_callback_failed", exc_info=error.__context__)
            self._break(exchange)
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # What follows a complete answer does not make it a worse one.
            self._is_poisoned = True
        if self._is_complete:
            self._finish(exchange)
        elif self._is_poisoned or (not self.has_begun and self._head_bytes > _HEAD_LIMIT_BYTES):
            self._break(exchange)

    def eof_received(self) -> None:
        """See asyncio.Protocol: closes, and `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._pool.lost(self)
        self._is_poisoned = True
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.is_over:
            return
        if exc is None and self._is_delimited_by_close():
            exchange.is_over = True
            exchange.receiver.on_end()
        else:
            exchange.broke_off(self)

    def _is_delimited_by_close(self) -> bool:
        if not self.has_begun:
            return False
        return not any(
            name in (b"content-length", b"transfer-encoding") for name, _ in self._headers
        )

    def _break(self, exchange: _Exchange) -> None:
        has_begun = self.has_begun
        self.abort()
        exchange.fail(
            Outcome.DIED if has_begun else Outcome.GARBAGE,
            "broken framing within the answer" if has_begun else "the answer is not HTTP",
        )

    def _finish(self, exchange: _Exchange) -> None:
        self._exchange = None
        if self._is_poisoned or not self._is_kept_alive:
            self.close()
        elif self.is_usable:
            self._pool.release(self)
        if not exchange.is_over:
            exchange.is_over = True
            exchange.receiver.on_end()

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        """A response begins; a second one to one request poisons the connection."""
        if self._is_complete:
            self._is_poisoned = True
            return
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        if not self._is_complete:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there: hand it over, unless it is an interim one."""
        if self._is_complete or self._exchange is None:
            return
        status = self._status = self._parser.get_status_code()
        is_http_1 = self._parser.get_http_version() in ("1.0", "1.1")
        if status == _SWITCHING_PROTOCOLS or not is_http_1:
            self._is_poisoned = True
        elif status >= _FIRST_FINAL_STATUS and not self._is_poisoned:
            self.has_begun = True
            if not self._exchange.is_over:
                self._exchange.receiver.on_head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without its framing."""
        exchange = self._exchange
        if exchange is None or exchange.is_over or self._is_complete or not self.has_begun:
            return
        exchange.receiver.on_body(body)

    def on_message_complete(self) -> None:
        """The response ended where its framing says."""
        if self.has_begun and not self._is_complete:
            self._is_complete = True
            self._is_kept_alive = self._parser.should_keep_alive()
