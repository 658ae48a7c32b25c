"""One keep-alive connection to an HTTP upstream: sends requests, parses their answers by llhttp.

A connection goes back to its pool only after a request that was sent to its end, and an answer that
ended exactly where its framing says; anything else closes it, so that no byte of one answer can
reach the next client, and no client waits behind another one's request.
"""

import asyncio
import fcntl
import logging
import struct
import termios
from typing import Protocol, cast

import httptools

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.batched_writes import BatchedWrites
from penumbra.router.upstream.content_coding import DecodingReceiver, coding_of
from penumbra.router.upstream.exchange import UpstreamExchange
from penumbra.router.upstream.port import Headers

log = logging.getLogger(__name__)

_HEAD_LIMIT_BYTES = 64 * 1024
_SWITCHING_PROTOCOLS = 101
_FIRST_STATUS, _FIRST_FINAL_STATUS, _LAST_STATUS = 100, 200, 599
_FIRST_ERROR_STATUS = 400
_QUEUE = struct.Struct("i")


class Pool(Protocol):
    """The pool that a connection belongs to."""

    def release(self, connection: "Connection") -> None:
        """Take back a connection whose answer ended cleanly."""

    def opened(self, connection: "Connection") -> None:
        """Count a connection that was made."""

    def lost(self, connection: "Connection") -> None:
        """Forget a connection that is gone."""


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
        self._batch = 0
        self._exchange: UpstreamExchange | None = None
        self._parser = cast("_ResponseParser", httptools.HttpResponseParser(self))
        self._headers: Headers = []
        self._head_bytes = 0
        self._status = 0
        self._is_complete = False
        self._is_poisoned = False
        self._is_kept_alive = False
        self._is_paused = False
        self._is_retired = False
        self._retirement: asyncio.TimerHandle | None = None
        self.has_begun = False

    @property
    def is_usable(self) -> bool:
        """Whether the next request can be sent on this connection."""
        return not self.transport.is_closing() and not self._is_poisoned

    def begin(self, exchange: UpstreamExchange) -> None:
        """Send the request of `exchange`; its answer goes to its receiver."""
        self._exchange = exchange
        exchange.carried_by(self)
        self.has_begun = self._is_complete = False
        self._head_bytes = 0
        # The slow reader of the last answer may have left the connection paused.
        if self._is_paused != exchange.is_paused:
            self.set_paused(is_paused=exchange.is_paused)
        for piece in exchange.wire:
            self._writes.write(self.transport, piece)
        self._batch = self._writes.batch

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

    def retire_in(self, seconds: float) -> None:
        """Close after this time, or when the answer then under way ends."""
        self._retirement = asyncio.get_running_loop().call_later(seconds, self._retire)

    def _retire(self) -> None:
        self._is_retired = True
        if self._exchange is None:
            self.close()

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
            self.abort()
            exchange.fail(Outcome.GATEWAY_LIMIT, "a fault of the gateway's own")
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
        exchange = self._exchange
        # A server acknowledges what it has got in the very packet that closes the connection: it
        # closed this one before the request came.
        if (
            exchange is not None
            and exchange.was_reused
            and not self._head_bytes
            and self._has_unsent(may_be_acknowledged=False)
        ):
            exchange.never_arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._pool.lost(self)
        if self._retirement is not None:
            self._retirement.cancel()
        self._is_poisoned = True
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.is_over:
            return
        if exc is None and self._is_delimited_by_close():
            exchange.is_over = True
            exchange.receiver.on_end()
        elif self.has_begun:
            exchange.fail(Outcome.DIED, "connection closed within the answer")
        else:
            if self._head_bytes:
                exchange.was_reused = False  # the server did begin to answer
            exchange.closed_unanswered()

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
        is_small, writes = len(exchange.wire) == 1, self._writes
        if is_small and not self.transport.get_write_buffer_size() and self._batch != writes.batch:
            is_unsent = False  # as nearly always
        else:
            is_unsent = self._has_unsent(may_be_acknowledged=is_small)
        if is_unsent:
            self.abort()
        elif self._is_poisoned or self._is_retired or not self._is_kept_alive:
            self.close()
        elif not is_small and self._status >= _FIRST_ERROR_STATUS:
            # A server that refuses a large request may not have read it, and not read on either:
            # the kernels' buffers take megabytes that it never asks for.
            self.close()
        elif not self.transport.is_closing():
            if self._is_paused:
                self.set_paused(is_paused=False)  # else the server's close would go unnoticed
            self._pool.release(self)
        if not exchange.is_over:
            exchange.is_over = True
            exchange.receiver.on_end()

    def _has_unsent(self, *, may_be_acknowledged: bool) -> bool:
        """Whether a part of the request is still here: unwritten, or not acknowledged.

        Args:
            may_be_acknowledged: Take what was written for arrived, without asking the kernel.
        """
        if self.transport.get_write_buffer_size() or self._writes.holds(self._batch):
            return True
        return not may_be_acknowledged and _unacknowledged_bytes(self.transport) > 0

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        """Begin a response; a second one to one request poisons the connection."""
        if self._is_complete:
            self._is_poisoned = True
            return
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header line."""
        if not self.has_begun:  # else it is a trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand the complete head over, unless it is an interim one."""
        if self._is_complete or self._exchange is None:
            return
        status = self._status = self._parser.get_status_code()
        is_http_1 = self._parser.get_http_version() in ("1.0", "1.1")
        is_status = _FIRST_STATUS <= status <= _LAST_STATUS and status != _SWITCHING_PROTOCOLS
        if not (is_http_1 and is_status) or self._is_head_too_long():
            self._is_poisoned = True
        elif status >= _FIRST_FINAL_STATUS and not self._is_poisoned:
            self.has_begun = True
            if not self._exchange.is_over:
                self._begin_answer(self._exchange, status)

    def _is_head_too_long(self) -> bool:
        if self._head_bytes <= _HEAD_LIMIT_BYTES:
            return False
        # What was read with the head may be the body's.
        length = sum(len(name) + len(value) + 4 for name, value in self._headers)
        return length > _HEAD_LIMIT_BYTES

    def _begin_answer(self, exchange: UpstreamExchange, status: int) -> None:
        headers = self._headers
        for name, _ in headers:
            if name == b"content-encoding":
                coding = coding_of(headers)
                if coding:
                    exchange.receiver = DecodingReceiver(exchange, coding)
                break
        exchange.receiver.on_head(status, headers)

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


def _unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the peer has not acknowledged yet; 0 where that is unknown."""
    sock = transport.get_extra_info("socket")
    try:
        # On a socket this is SIOCOUTQ: tcp(7).
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, _QUEUE.pack(0))
    except (OSError, AttributeError):
        return 0
    return int(_QUEUE.unpack(answer)[0])
