"""The `Upstream` port over HTTP/1.1: any vLLM-compatible server, ours behind HAProxy or not.

`HttpUpstream` is the connection pool of one variant; the connections themselves are in
`penumbra.router.upstream.connection`.
"""

import asyncio
import logging
import math
import random
from collections import deque
from dataclasses import dataclass

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.base_url import read_base_url
from penumbra.router.upstream.batched_writes import BatchedWrites
from penumbra.router.upstream.calls import UpstreamCalls
from penumbra.router.upstream.connecting import connect, is_gateway_limit
from penumbra.router.upstream.connection import Connection
from penumbra.router.upstream.exchange import UpstreamExchange
from penumbra.router.upstream.port import Receiver, Stream, UpstreamRequest
from penumbra.router.upstream.resolver import Resolver
from penumbra.router.upstream.tls import client_context

log = logging.getLogger(__name__)

_JOIN_LIMIT_BYTES = 64 * 1024
_NO_ATTEMPTS_LEFT = "no attempts left"
_LATE_SECONDS = 0.25
_LOG_SECONDS = 60.0
"""Least time between two log lines about failed connects of one variant."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Limits of the connections to one variant."""

    connect_seconds: float = 2.0
    """For opening one: look-up, all addresses and TLS together."""
    connections: int = 4096
    """Open connections at most, busy and idle."""
    lifetime_seconds: float = 300.0
    """A connection is closed after this, or up to a fifth earlier, so that new ones are made at the
    addresses that the name then has."""


class HttpUpstream(UpstreamCalls):
    """A variant that answers at a URL.

    Args:
        model: Public model name, as the server knows it.
        url: Base URL, e.g. `http://127.0.0.1:8000/demo-int8` or `https://engine.example/v1`.
        api_key: Sent as bearer token, if the server wants one.
        ca_file: Certificates that an https server's must be signed by, in place of the system's.
        limits: Limits of the connections.
        writes: Queue of small requests.

    Raises:
        ValueError: `url` is not an absolute http or https URL, or `ca_file` cannot be used.
    """

    def __init__(
        self,
        model: str,
        url: str,
        *,
        api_key: str | None = None,
        ca_file: str | None = None,
        limits: PoolLimits | None = None,
        writes: BatchedWrites | None = None,
    ) -> None:
        super().__init__(model)
        try:
            base = read_base_url(url)
        except ValueError as error:
            raise ValueError(f"variant url: {error}") from error
        self._base = base
        self._prefix = base.prefix.encode("ascii")
        authorization = f"authorization: Bearer {_checked_key(api_key)}\r\n" if api_key else ""
        self._fixed = f" HTTP/1.1\r\nhost: {base.authority}\r\n{authorization}".encode("latin-1")
        self._tls = client_context(ca_file) if base.is_tls else None
        self._resolver = Resolver(base.host, base.port)
        self._limits = limits or PoolLimits()
        self._writes = writes or BatchedWrites()
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._pending: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._logged_at = -math.inf
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
        # A kept connection may be closing, and the last send cannot be repeated.
        while self._idle and (request.budget.left > 1 or self._is_full):
            connection = self._idle.pop()
            if connection.is_usable:
                exchange.was_reused = True
                connection.begin(exchange)
                return exchange
        self.connect_for(exchange)
        return exchange

    def connect_for(self, exchange: UpstreamExchange, *, is_again: bool = False) -> None:
        """Open a connection and send `exchange` on it.

        Args:
            exchange: The request.
            is_again: Whether a first try was lost because this process stood still.
        """
        task = asyncio.get_running_loop().create_task(self._connect(exchange, is_again=is_again))
        exchange.connecting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    @property
    def _is_full(self) -> bool:
        return self.open_connections >= self._limits.connections

    async def _connect(self, exchange: UpstreamExchange, *, is_again: bool) -> None:
        if self._is_full:
            exchange.fail(Outcome.GATEWAY_LIMIT, "connection limit reached")
            return
        connection = Connection(self, self._writes)
        self._pending.add(connection)
        limit = asyncio.timeout(self._limits.connect_seconds)
        try:
            async with limit:
                await self._open_connection(connection)
        except TimeoutError:
            late = asyncio.get_running_loop().time() - (limit.when() or math.inf)
            # This process was busy: the server may have answered long ago.
            is_own_fault = late > _LATE_SECONDS
            if is_own_fault and not (is_again or exchange.is_over):
                self.connect_for(exchange, is_again=True)
                return
            outcome = Outcome.GATEWAY_LIMIT if is_own_fault else Outcome.REFUSED
            self._failed(exchange, outcome, "connect timed out")
        except OSError as error:
            outcome = Outcome.GATEWAY_LIMIT if is_gateway_limit(error) else Outcome.REFUSED
            self._failed(exchange, outcome, f"connect failed: {error.strerror or error}")
        else:
            self._begin(connection, exchange)
        finally:
            self._pending.discard(connection)

    async def _open_connection(self, connection: Connection) -> None:
        addresses = await self._resolver.addresses()
        sock = await connect(addresses, self._limits.connect_seconds)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                sock=sock,
                ssl=self._tls,
                server_hostname=self._base.host if self._tls is not None else None,
            )
        except BaseException:
            sock.close()
            raise

    def _failed(self, exchange: UpstreamExchange, outcome: Outcome, detail: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            log.warning(
                "upstream_connect_failed",
                extra={"model": self.model, "url": self._base.root, "error": detail},
            )
        exchange.fail(outcome, detail)

    def _begin(self, connection: Connection, exchange: UpstreamExchange) -> None:
        exchange.connecting = None
        if not exchange.is_over and exchange.budget.left <= 0:
            exchange.fail(Outcome.REFUSED, _NO_ATTEMPTS_LEFT)
        if exchange.is_over:
            self.release(connection)
            return
        if not connection.is_usable:  # accepted and closed at once
            exchange.fail(Outcome.REFUSED, "connection closed before it was used")
            return
        connection.begin(exchange)

    def release(self, connection: Connection) -> None:
        """Take back a connection whose answer ended cleanly."""
        if self._is_closed:
            connection.close()
        else:
            self._idle.append(connection)

    def opened(self, connection: Connection) -> None:
        """Count a connection that was made."""
        self._pending.discard(connection)
        self._open.add(connection)
        spread = random.uniform(0.8, 1.0)  # noqa: S311 -- so that they do not all end at once
        connection.retire_in(self._limits.lifetime_seconds * spread)

    def lost(self, connection: Connection) -> None:
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


def _checked_key(api_key: str) -> str:
    key = api_key.strip()  # a file that a variable was read from ends with a line break
    if not key.isascii() or not key.isprintable():
        raise ValueError("the variant's API key holds characters that no header may have")
    return key
