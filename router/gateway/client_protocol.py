"""One client connection: uvicorn's llhttp protocol, with the hot routes taken out of ASGI.

A request on a hot route becomes an `Exchange`, answered from callbacks; all others go to the ASGI
application. There is one port and one parser, and pipelined requests are answered in order. This
file also does what uvicorn leaves to a proxy in front: it cuts slow clients and ends connections so
that the client can read why. Its bases parse: `SlicedReader` in bounded slices, and `HeadReader`
refuses heads that are too large or that two HTTP parsers may read in two ways.
"""

import asyncio
import math
from hmac import compare_digest
from typing import Any

from penumbra.router.errors import GatewayError, RequestTimeout
from penumbra.router.gateway.api_keys import Caller
from penumbra.router.gateway.exchange import Exchange
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.headers import last_answer
from penumbra.router.gateway.hot_routes import HOT_PATHS, hot_path, without_slash
from penumbra.router.gateway.repeated_head import RepeatedHead
from penumbra.router.gateway.request_reader import RequestReader
from penumbra.router.gateway.sliced_reader import PIPELINE_LENGTH, SlicedReader

_LINGER_SECONDS = 2.0
"""Time for which a client that has its refusal may send nothing, before it is cut off."""
_LINGER_BYTES = 64 * 1024 * 1024
"""Bytes that are read and dropped for a client that sends all before it reads its refusal."""


class GatewayProtocol(SlicedReader):
    """A client connection of the gateway.

    Args:
        gateway: The process that it belongs to.
        **uvicorn_state: Arguments of uvicorn's own protocol.
    """

    # uvicorn's own cycle on other routes, an Exchange on the hot ones.
    cycle: Any

    def __init__(self, gateway: Gateway, **uvicorn_state: Any) -> None:
        super().__init__(gateway.limits, **uvicorn_state)
        self._gateway = gateway
        self._is_unreadable = False
        self._refused: GatewayError | None = None
        self._discarded_bytes: int | None = None
        self._linger_until = math.inf
        self._turn: Exchange | None = None
        self._authorization: bytes | None = None
        self._caller: Caller | None = None
        self.deadline = math.inf
        """When `expire` is due; monotonic seconds."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.deadline = self._gateway.now() + self._limits.header_seconds
        self._gateway.timed.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._gateway.timed.discard(self)
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.client_gone()
        if isinstance(self.cycle, Exchange):
            self.cycle = None
        super().connection_lost(exc)

    def _take(self, data: bytes | memoryview) -> None:
        if self._discarded_bytes is not None:
            self._discard(data)
            return
        if self._is_unreadable:
            return
        self._head_bytes = self._head_bytes + len(data) if self._in_head else len(data)
        is_new = self._heads_to_learn and self._is_between
        problem = self._feed_and_learn(data) if is_new else self._feed(data)
        if problem is None and (self._in_head or self._is_chunked):
            problem = self._size_problem(len(data))
        if problem is not None:
            self._refuse(problem)

    def _begin_repeat(self, head: RepeatedHead, data: bytes) -> bool:
        if not self._is_between or not self.cycle.response_complete:
            return False
        length = head.length_in(data)
        if length is None:
            return False
        headers = {**head.headers, b"content-length": length}
        exchange = self.cycle = Exchange(self, self._gateway, head.path, headers, head.lines)
        exchange.open(is_http_1_0=False, keep_alive=True)
        self._begin_turn(exchange)
        self.deadline = math.inf
        if size := int(length):
            exchange.receive(data[-size:])
        exchange.complete_body()
        return True

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        if self._turn is not None:
            self._turn.pause()
        else:
            self.deadline = self._gateway.now() + self._limits.client_write_seconds

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._turn is not None:
            self._turn.resume()
        elif self._discarded_bytes is None:
            self.deadline = self._gateway.now() + self._patience_seconds()

    def forgive(self, seconds: float) -> None:
        """Extend the limit: the process itself stood still for so long."""
        self.deadline += seconds

    def expire(self, now: float) -> None:
        """End what the client is too slow for; close an idle connection."""
        self.deadline = math.inf
        is_over = self._discarded_bytes is not None or self.transport.is_closing()
        if is_over or self.flow.write_paused:
            self.transport.abort()
        elif self._in_head:
            limit = self._limits.header_seconds
            self._refuse(RequestTimeout(f"the head did not arrive within {limit:g} s"))
        elif isinstance(self.cycle, Exchange) and not self.cycle.is_read:
            limit = self._limits.body_seconds
            self.cycle.reject(RequestTimeout(f"the body did not arrive within {limit:g} s"))
        else:
            self.transport.close()

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        """Begin a request."""
        # The ASGI scope, which most requests need not, is made where it is needed.
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head = True
        self._is_between = False
        if self._turn is None:
            self.deadline = self._gateway.now() + self._limits.header_seconds

    def on_headers_complete(self) -> None:
        """Start the exchange of a complete head, or pass it on to ASGI.

        Raises:
            GatewayError: The connection cannot be read on. Raising stops the parser, so that
                nothing behind this head is executed.
        """
        headers = self._complete_head()
        if headers is None:
            return
        path = self.url if self.url in HOT_PATHS else hot_path(self.url)
        if path is None or self.parser.get_method() != b"POST":
            self.deadline = math.inf
            self._pass_to_asgi()
            return
        exchange = Exchange(self, self._gateway, path, headers, self.headers)
        previous = self.cycle
        self.cycle = exchange
        is_idle = previous is None or previous.response_complete
        if not is_idle:
            # Read on for a while: a closed connection shows only while it is read.
            if len(self.pipeline) >= PIPELINE_LENGTH:
                self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]
        keep_alive = self.parser.should_keep_alive()
        exchange.open(is_http_1_0=self._is_http_1_0, keep_alive=keep_alive)
        if is_idle:
            self._begin_turn(exchange)

    def _pass_to_asgi(self) -> None:
        url, expects, lines = without_slash(self.url), self.expect_100_continue, self.headers
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += lines
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body."""
        self._had_body = True
        if isinstance(self.cycle, Exchange):
            self.cycle.receive(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Close the body of a complete request."""
        if self._next_head is not None:  # only its head is complete
            return
        if isinstance(self.cycle, Exchange):
            self.deadline = math.inf
            self._is_between = True
            self.cycle.complete_body()
        else:
            super().on_message_complete()

    def identify(self, authorization: bytes | None) -> Caller:
        """Find the caller that an `authorization` header names: often that of the last request.

        Raises:
            InvalidKey: Keys are configured and the header holds none of them.
        """
        caller, known = self._caller, self._authorization
        # In constant time: a proxy may send the requests of several clients on one connection.
        if caller is None or not compare_digest(known or b"", authorization or b""):
            caller = self._caller = self._gateway.keys.identify(authorization, self)
            self._authorization = authorization
        return caller

    def forget_caller(self) -> None:
        """See KnowsCaller: the keys in force are others now."""
        self._caller = self._authorization = None

    # Turns

    def _begin_turn(self, exchange: Exchange) -> None:
        self._turn = exchange
        exchange.take_turn()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """See HttpToolsProtocol: also called for the next request in the pipeline."""
        if isinstance(cycle, Exchange):
            self._begin_turn(cycle)
        else:
            self._gateway.writes.flush()
            super()._start_asgi_task(cycle, app)

    def exchange_complete(self, exchange: RequestReader) -> None:
        """Go on after an exchange that has written all of its answer."""
        if self._turn is exchange:
            self._turn = None
        if exchange.keep_alive:
            self.on_response_complete()
        elif exchange.is_read:
            self._gateway.writes.flush()
            self.transport.close()
        else:
            self._linger()

    def on_response_complete(self) -> None:
        """See HttpToolsProtocol; the keep-alive limit is one of this connection's deadlines."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._unfed is not None or self.flow.read_paused:
            self._go_on_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._refused is not None:
            self._send_refusal(self._refused)
        else:
            is_between = not (self._in_head or self.flow.write_paused)
            limit = self._limits.keep_alive_seconds if is_between else self._patience_seconds()
            self.deadline = self._gateway.now() + limit

    def _patience_seconds(self) -> float:
        """Longest time in which a client that has its answers may do nothing."""
        if self.flow.write_paused:
            return self._limits.client_write_seconds
        return self._limits.header_seconds if self._in_head else self._limits.keep_alive_seconds

    # The end

    def _refuse(self, error: GatewayError) -> None:
        """Stop reading: answer earlier requests, then send the error, then close."""
        self._is_unreadable = True
        self._repeated = None
        cycle = self.cycle
        if isinstance(cycle, Exchange) and not cycle.is_read and not cycle.response_complete:
            cycle.reject(error)
        elif cycle is None or cycle.response_complete:
            self._send_refusal(error)
        elif not self.pipeline and self._turn is None and not cycle.response_started:
            # The application waits for the rest of the body, which does not come.
            cycle.disconnected = True
            cycle.message_event.set()
            self._send_refusal(error)
        else:
            self._refused = error
            self.flow.pause_reading()

    def _send_refusal(self, error: GatewayError) -> None:
        self._gateway.metrics.errors.cell(error.reported_code).value += 1
        self._gateway.writes.flush()
        request_id = self._gateway.next_request_id()
        self.transport.write(last_answer(error.status, error.body, request_id))
        self._linger()

    def _linger(self) -> None:
        """Close, but let a client that is still sending read its answer first.

        Closing with unread bytes resets the connection, and the reset can overtake the answer.
        """
        if self.transport.is_closing():
            return
        self._gateway.writes.flush()
        self._repeated = None
        self._discarded_bytes = 0
        now = self._gateway.now()
        self.deadline = now + _LINGER_SECONDS
        self._linger_until = now + self._limits.body_seconds
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _discard(self, data: bytes | memoryview) -> None:
        self._discarded_bytes = (self._discarded_bytes or 0) + len(data)
        self.deadline = min(self._gateway.now() + _LINGER_SECONDS, self._linger_until)
        if self._discarded_bytes > _LINGER_BYTES:
            self.transport.abort()
