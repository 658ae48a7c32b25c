"""The `Upstream` port over HTTP/1.1: any vLLM-compatible server, ours behind HAProxy or not.

`HttpUpstream` is the connection pool of one variant; the connections themselves are in
`penumbra.router.upstream.connection`.
"""

import asyncio
from collections import deque
from urllib.parse import urlsplit

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.batched_writes import BatchedWrites
from penumbra.router.upstream.calls import UpstreamCalls
from penumbra.router.upstream.connection import Connection, UpstreamExchange
from penumbra.router.upstream.port import Receiver, Stream, UpstreamRequest

_JOIN_LIMIT_BYTES = 64 * 1024
_NO_ATTEMPTS_LEFT = "no attempts left"


class HttpUpstream(UpstreamCalls):
    """A variant that answers at a URL.

    Args:
        model: Public model name, as the server knows it.
        url: Base URL, http only, e.g. `http://127.0.0.1:8000/demo-int8`.
        api_key: Sent as bearer token, if the server wants one.
        connect_seconds: Limit for opening a connection.
        connections: Open connections at most, busy and idle.
        writes: Queue of small requests.

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
        writes: BatchedWrites | None = None,
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
        self._writes = writes or BatchedWrites()
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._pending: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def open_connections(self) -> int:
        """Connections now open or being opened."""
        return len(self._open) + len(self._pending)

    @property
    def idle_connections(self) -> int:
        """Open connections that wait for a request."""
        return len(self._idle)

    def stream(self, request: UpstreamRequest, receiver: Receiver) -> Stream:
        """See `Upstream.stream`: pooled, a fresh connection where none is idle."""
        exchange = UpstreamExchange(self, self._wire(request), receiver, request.budget)
        if request.budget.left <= 0:
            asyncio.get_running_loop().call_soon(exchange.fail, Outcome.REFUSED, _NO_ATTEMPTS_LEFT)
            return exchange
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                exchange.was_reused = True
                connection.begin(exchange)
                return exchange
        self.connect_for(exchange)
        return exchange

    def connect_for(self, exchange: "UpstreamExchange") -> None:
        """Open a connection and send `exchange` on it."""
        task = asyncio.get_running_loop().create_task(self._connect(exchange))
        exchange.connecting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: "UpstreamExchange") -> None:
        if self.open_connections >= self._limit:
            exchange.fail(Outcome.REFUSED, "connection limit reached")
            return
        connection = Connection(self, self._writes)
        self._pending.add(connection)
        try:
            async with asyncio.timeout(self._connect_seconds):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, self._host, self._port
                )
        except TimeoutError:
            exchange.fail(Outcome.REFUSED, "connect timed out")
        except OSError as error:
            exchange.fail(Outcome.REFUSED, f"connect failed: {error.strerror or 'no address'}")
        else:
            self._begin(connection, exchange)
        finally:
            self._pending.discard(connection)

    def _begin(self, connection: "Connection", exchange: "UpstreamExchange") -> None:
        exchange.connecting = None
        if not exchange.is_over and exchange.budget.left <= 0:
            exchange.fail(Outcome.REFUSED, _NO_ATTEMPTS_LEFT)
        if exchange.is_over:
            self.release(connection)
            return
        connection.begin(exchange)

    def release(self, connection: "Connection") -> None:
        """Take back a connection whose answer ended cleanly."""
        if self._is_closed:
            connection.close()
        else:
            self._idle.append(connection)

    def opened(self, connection: "Connection") -> None:
        """Count a connection that was made."""
        self._pending.discard(connection)
        self._open.add(connection)

    def lost(self, connection: "Connection") -> None:
        """Forget a connection that is gone."""
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
