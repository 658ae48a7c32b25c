"""HTTP protocol of the control process: uvicorn's, with deadlines and bounds for every connection.

Uvicorn has no deadline for a request's head or body, none for a connection that sends nothing, and
no bound for a head. Here each connection is in one of these states, each with its own deadline
(`ConnectionLimits`):

    HEAD ──► BODY ──► ANSWER ──► IDLE ──► HEAD ...
                └────► DISCARD ────┘         the answer came before the whole body
"""

import asyncio
import json
from enum import Enum, auto
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from penumbra.deployments.api.connection_limits import Connections
from penumbra.deployments.api.refused_logins import Cause, Surface
from penumbra.router.errors import error_type

_REASONS = {401: b"Unauthorized", 431: b"Request Header Fields Too Large"}


class _State(Enum):
    HEAD = auto()
    BODY = auto()
    DISCARD = auto()
    ANSWER = auto()
    IDLE = auto()
    OVER = auto()
    """Refused or upgraded: nothing more is read here."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        all_connections: Bounds, and the connections without a valid token.
        config: See uvicorn.
        server_state: See uvicorn.
        app_state: See uvicorn.
        _loop: See uvicorn.
    """

    def __init__(
        self,
        all_connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = all_connections
        self._limits = all_connections.limits
        self._state = _State.HEAD
        self._head_bytes = 0
        self._is_known = False
        self._deadline: asyncio.TimerHandle | None = None

    # For `Connections`

    @property
    def host(self) -> str:
        """The address at the other end; empty if that is not known."""
        return self.client[0] if self.client else ""

    def abort(self) -> None:
        """Close the connection at once, whatever waits to be sent."""
        self._enter(_State.OVER, None)
        self.transport.abort()

    # Called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._enter(_State.HEAD, self._limits.head_seconds)
        self._all.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._enter(_State.OVER, None)
        self._all.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head that grows past its bound is refused."""
        if self._state is _State.OVER:
            return
        if self._state is _State.IDLE:
            self._begin_head()
        super().data_received(data)
        if self._state is _State.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(431, "request_too_large")

    # Called by the parser

    def on_message_begin(self) -> None:
        """A request begins, perhaps behind another one in the same bytes."""
        super().on_message_begin()
        if self._state is not _State.HEAD:
            self._begin_head()
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer behind a body is dropped, for it would have no bound."""
        if self._state is _State.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Look at the token before any byte of the body."""
        self._is_known = self._all.is_known(self._authorization())
        if self._is_known:
            self._all.forget(self)
        else:
            self._all.admit(self)
        # A route that reads the body answers 408 first.
        self._enter(_State.BODY, self._limits.body_seconds + self._limits.discard_seconds)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The whole request is here."""
        is_answered = self._state is _State.DISCARD
        super().on_message_complete()
        if self._state is _State.OVER:
            return
        if is_answered:
            self._enter(_State.IDLE, self._limits.idle_seconds)
        else:
            self._enter(_State.ANSWER, self._limits.answer_seconds)

    # Called by uvicorn

    def on_response_complete(self) -> None:
        """The whole answer is written, if not yet taken."""
        has_next = bool(self.pipeline)
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the deadlines here are stricter, and always there
        if self._state is _State.BODY:
            self._enter(_State.DISCARD, self._limits.discard_seconds)
        elif self._state is _State.ANSWER and not has_next:
            is_taken = self.transport.get_write_buffer_size() == 0
            limits = self._limits
            self._enter(_State.IDLE, limits.idle_seconds if is_taken else limits.answer_seconds)

    def handle_websocket_upgrade(self) -> None:
        """Hand over to the WebSocket protocol, provided that the request shows a valid token.

        All WebSockets are links, so it is here that a certificate is asked for, too.
        """
        # One that is shown was verified in the handshake.
        is_certified = bool(self.transport.get_extra_info("peercert"))
        if self._all.needs_certificate and not is_certified:
            seconds = self._all.refused.note(self.host, Surface.LINK, Cause.NO_CERTIFICATE)
            self._refuse(401, "certificate_needed", seconds)
            return
        if not self._is_known:
            shown = self._authorization()
            refused = self._all.refused
            seconds = refused.note(self.host, Surface.LINK, refused.cause_of(shown))
            self._refuse(401, "unauthorized", seconds)
            return
        self._enter(_State.OVER, None)
        super().handle_websocket_upgrade()

    def _begin_head(self) -> None:
        self._enter(_State.HEAD, self._limits.head_seconds)
        self._head_bytes = 0

    def _authorization(self) -> str | None:
        found = (value for name, value in self.headers if name == b"authorization")
        return next((value.decode("latin-1") for value in found), None)

    def _refuse(self, status: int, code: str, seconds: float = 0.0) -> None:
        """Answer after a time, and close; nothing more is read meanwhile."""
        self._enter(_State.OVER, seconds + self._limits.discard_seconds)
        message = f"{_REASONS[status].decode()}: see docs/control-plane.md, Limits before a token"
        error = {"message": message, "type": error_type(status), "param": None, "code": code}
        body = json.dumps({"error": error}).encode()
        lines = (
            b"HTTP/1.1 %d %s" % (status, _REASONS[status]),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
            b"",
            body,
        )
        self.loop.call_later(seconds, self._say_last, b"\r\n".join(lines))

    def _say_last(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def _enter(self, state: _State, seconds: float | None) -> None:
        self._state = state
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)
