"""One request at one HTTP upstream, and the keep-alive connection that carries it.

A connection goes back to its pool only after an answer that ended exactly where its framing says;
anything else closes it, so that no byte of one answer can reach the next client. Parsed by llhttp.
"""

import asyncio
import logging
from typing import Protocol, cast

import httptools

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.batched_writes import BatchedWrites
from penumbra.router.upstream.port import AttemptBudget, Headers, Receiver

log = logging.getLogger(__name__)

_HEAD_LIMIT_BYTES = 64 * 1024
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200


class Pool(Protocol):
    """The pool that opens connections and takes them back."""

    def connect_for(self, exchange: "UpstreamExchange") -> None:
        """Open a connection and send `exchange` on it."""

    def release(self, connection: "Connection") -> None:
        """Take back a connection whose answer ended cleanly."""

    def opened(self, connection: "Connection") -> None:
        """Count a connection that was made."""

    def lost(self, connection: "Connection") -> None:
        """Forget a connection that is gone."""


class UpstreamExchange:
    """One request at one upstream: the `Stream` that its caller holds.

    Args:
        upstream: The pool that sends it.
        wire: The request as bytes, in pieces.
        receiver: Takes the answer.
        budget: Takes count of the sends.
    """

    __slots__ = (
        "budget",
        "connecting",
        "connection",
        "is_over",
        "is_paused",
        "receiver",
        "upstream",
        "was_reused",
        "was_sent",
        "wire",
    )

    def __init__(
        self, upstream: Pool, wire: tuple[bytes, ...], receiver: Receiver, budget: AttemptBudget
    ) -> None:
        self.upstream = upstream
        self.wire = wire
        self.receiver = receiver
        self.budget = budget
        self.connection: Connection | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.was_sent = False
        self.was_reused = False
        self.is_over = False
        self.is_paused = False

    def abort(self) -> None:
        """See `Stream`."""
        if self.is_over:
            return
        self.is_over = True
        if self.connecting is not None:
            self.connecting.cancel()
        if self.connection is not None:
            self.connection.abort()

    def pause(self) -> None:
        """See `Stream`."""
        self.is_paused = True
        if self.connection is not None and not self.is_over:
            self.connection.set_paused(is_paused=True)

    def resume(self) -> None:
        """See `Stream`."""
        self.is_paused = False
        if self.connection is not None and not self.is_over:
            self.connection.set_paused(is_paused=False)

    def fail(self, outcome: Outcome, detail: str) -> None:
        """End the exchange with a failure, once."""
        if self.is_over:
            return
        self.is_over = True
        self.receiver.on_fail(outcome, detail)

    def broke_off(self, connection: "Connection") -> None:
        """Handle a connection that the server closed, or that broke: send again, or fail."""
        if self.is_over:
            return
        if connection.has_begun:
            self.fail(Outcome.DIED, "connection closed within the answer")
        elif self.was_reused and self.budget.can_repeat:
            # A kept connection may be closed by its server at any moment, and a proxy closes one
            # whose server did so: the request is sent once more, on a fresh one.
            self.was_reused = False
            self.connection = None
            self.upstream.connect_for(self)
        else:
            self.fail(Outcome.REFUSED, "connection closed before an answer")


class _ResponseParser(Protocol):
    """The part of `httptools.HttpResponseParser` that is used; it has no types of its own."""

    def feed_data(self, data: bytes) -> None: ...
    def get_http_version(self) -> str: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


class Connection(asyncio.Protocol):
    """One keep-alive connection to an upstream."""

    transport: asyncio.Transport

    def __init__(self, pool: Pool, writes: BatchedWrites) -> None:
        self._pool = pool
        self._writes = writes
        self._exchange: UpstreamExchange | None = None
        self._parser = cast("_ResponseParser", httptools.HttpResponseParser(self))
        self._headers: Headers = []
        self._head_bytes = 0
        self._status = 0
        self._is_complete = False
        self._is_poisoned = False
        self._is_kept_alive = False
        self._is_paused = False
        self.has_begun = False

    @property
    def is_usable(self) -> bool:
        """Whether the next request can be sent on this connection."""
        return not self.transport.is_closing() and not self._is_poisoned

    def begin(self, exchange: UpstreamExchange) -> None:
        """Send the request of `exchange`; its answer goes to its receiver."""
        self._exchange = exchange
        exchange.connection = self
        exchange.was_sent = True
        exchange.budget.left -= 1
        self.has_begun = self._is_complete = False
        self._head_bytes = 0
        # The slow reader of the last answer may have left the connection paused.
        self.set_paused(is_paused=exchange.is_paused)
        for piece in exchange.wire:
            self._writes.write(self.transport, piece)

    def set_paused(self, *, is_paused: bool) -> None:
        """Stop reading, or go on."""
        if is_paused == self._is_paused:
            return
        self._is_paused = is_paused
        if is_paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close at once and drop the exchange in flight."""
        self._exchange = None
        self._is_poisoned = True
        self.transport.abort()

    def close(self) -> None:
        """Close an idle connection."""
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

    def _break(self, exchange: UpstreamExchange) -> None:
        has_begun = self.has_begun
        self.abort()
        exchange.fail(
            Outcome.DIED if has_begun else Outcome.GARBAGE,
            "broken framing within the answer" if has_begun else "the answer is not HTTP",
        )

    def _finish(self, exchange: UpstreamExchange) -> None:
        self._exchange = None
        if self._is_poisoned or not self._is_kept_alive:
            self.close()
        elif self.is_usable:
            self.set_paused(is_paused=False)  # else the server's close would go unnoticed
            self._pool.release(self)
        if not exchange.is_over:
            exchange.is_over = True
            exchange.receiver.on_end()

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        """Begin a response; a second one to one request poisons the connection."""
        if self._is_complete:
            self._is_poisoned = True
            return
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header line."""
        if not self._is_complete:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand the complete head over, unless it is an interim one."""
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
        """Hand a piece of the body over, without its framing."""
        exchange = self._exchange
        if exchange is None or exchange.is_over or self._is_complete or not self.has_begun:
            return
        exchange.receiver.on_body(body)

    def on_message_complete(self) -> None:
        """End the response where its framing says."""
        if self.has_begun and not self._is_complete:
            self._is_complete = True
            self._is_kept_alive = self._parser.should_keep_alive()
