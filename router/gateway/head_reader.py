"""Feeds a client's bytes to llhttp, and says what is wrong with a request head as an error.

`GatewayProtocol` (`penumbra.router.gateway.client_protocol`) is the only subclass and acts on the
requests; both are one object, so that a request costs no extra calls.
"""

import logging
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penumbra.router.errors import BadRequest, GatewayError, HeaderTooLarge
from penumbra.router.gateway.head_checks import check_head, origin_form
from penumbra.router.gateway.hot_routes import hot_path
from penumbra.router.gateway.repeated_head import RepeatedHead, repeated_head
from penumbra.router.gateway.upgrade_offers import head_without_offer
from penumbra.router.settings import LimitSettings

log = logging.getLogger(__name__)

_OFFERS_AT_ONCE = 16
_HEADS_TO_LEARN = 4
"""Heads of a connection that are remembered in turn: a client whose heads all differ gains nothing.
"""


class HeadReader(HttpToolsProtocol):
    """The reading side of a client connection, up to the end of each head.

    Args:
        limits: Limits of the process.
        **uvicorn_state: Arguments of uvicorn's own protocol.
    """

    def __init__(self, limits: LimitSettings, **uvicorn_state: Any) -> None:
        super().__init__(**uvicorn_state)
        self._limits = limits
        self._most_lines = limits.header_lines
        self._in_head = False
        self._is_http_1_0 = False
        # Whether a request on a hot route, or none yet, is read, and nothing of the next one.
        self._is_between = True
        self._repeated: RepeatedHead | None = None
        self._heads_to_learn = _HEADS_TO_LEARN
        # Heads that were read so far.
        self._heads = 0
        # Bytes since the head began, those behind it in the same read included.
        self._head_bytes = 0
        self._is_chunked = False
        self._had_body = False
        # Bytes since the last piece of a chunked body: its trailer, or the extension of a chunk.
        self._framing_bytes = 0
        # The head to go on with, once llhttp has stopped behind one that offers an upgrade.
        self._next_head: bytes | None = None
        self._offers = 0

    def _feed(self, data: bytes | memoryview) -> GatewayError | None:
        """Feed bytes to the parser; returns the error for which the connection cannot go on."""
        try:
            self.parser.feed_data(data)
            return None
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, GatewayError):
                return cause
            # The client is not at fault: a callback of the gateway raised.
            log.error("request_callback_failed", exc_info=cause)
            self.transport.abort()
            return None
        except httptools.HttpParserUpgrade as error:
            stopped_at = error.args[0]
        except httptools.HttpParserError as error:
            if self.parser.get_method() == b"PRI":
                return BadRequest("HTTP/2 is not spoken here: send HTTP/1.1")
            return BadRequest(f"malformed HTTP request: {error}")
        # Not within the handler: what is raised there has another context than its cause.
        return self._feed_without_offer(memoryview(data)[stopped_at:])

    def _feed_and_learn(self, data: bytes | memoryview) -> GatewayError | None:
        """Feed bytes that begin a request; remember its head, if they are no more and no less."""
        heads = self._heads
        problem = self._feed(data)
        is_request = self._is_between and self._heads == heads + 1 and isinstance(data, bytes)
        if is_request and problem is None and not self._is_http_1_0:
            path, lines = hot_path(self.url), self.headers
            if path is not None:
                self._heads_to_learn -= 1
                limit = self._limits.header_bytes
                self._repeated = repeated_head(bytes(data), path, dict(lines), lines, limit)
        return problem

    def _feed_without_offer(self, rest: memoryview) -> GatewayError | None:
        """Go on behind a head that offers an upgrade, with a parser that does not see the offer."""
        head, self._next_head = self._next_head, None
        if self._offers >= _OFFERS_AT_ONCE or head is None:
            return BadRequest("too many protocol upgrades offered at once")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._offers += 1
        try:
            return self._feed(head) or self._feed(rest)
        finally:
            self._offers -= 1

    def _size_problem(self, size: int) -> GatewayError | None:
        """The error of a head or a trailer that is too large, after `size` bytes more of it."""
        limit = self._limits.header_bytes
        if self._in_head:
            if len(self.headers) > self._most_lines:
                return self._too_many_lines()
            return self._head_too_large() if self._head_bytes > limit else None
        self._framing_bytes = 0 if self._had_body else self._framing_bytes + size
        self._had_body = False
        if self._framing_bytes <= limit:
            return None
        return HeaderTooLarge(f"the trailer is larger than {limit} bytes (limits.header_bytes)")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header line; those of a trailer are dropped, and bounded by their bytes."""
        if self._in_head:
            self.headers.append((name.lower(), value))

    def _complete_head(self) -> dict[bytes, bytes] | None:
        """Check a head that is complete.

        Returns:
            Header values by name in lower case, of repeated lines the last; None if the head offers
            an upgrade: it will come once more without it.

        Raises:
            GatewayError: The connection cannot be read on. Raising stops the parser, so that
                nothing behind this head is executed.
        """
        self._in_head = False
        self._heads += 1
        parser, headers = self.parser, self.headers
        version = parser.get_http_version()
        self._is_http_1_0 = version == "1.0"
        if parser.should_upgrade():
            self._next_head = head_without_offer(parser.get_method(), self.url, version, headers)
            return None
        if len(headers) > self._most_lines:
            raise self._too_many_lines()
        by_name = dict(headers)
        if b"expect" in by_name:
            self.expect_100_continue = by_name[b"expect"].lower() == b"100-continue"
        self._is_chunked = b"transfer-encoding" in by_name
        if self._head_bytes > self._limits.header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > self._limits.header_bytes:
                raise self._head_too_large()
        check_head(version, headers, by_name)
        if not self.url.startswith(b"/") or b"#" in self.url:
            self.url = origin_form(self.url, by_name.get(b"host"))
        return by_name

    def _too_many_lines(self) -> HeaderTooLarge:
        limit = self._most_lines
        return HeaderTooLarge(f"the head has more than {limit} lines (limits.header_lines)")

    def _head_too_large(self) -> HeaderTooLarge:
        limit = self._limits.header_bytes
        return HeaderTooLarge(f"the head is larger than {limit} bytes (limits.header_bytes)")
