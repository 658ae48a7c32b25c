"""The request side of an exchange: admits a request by its head, then collects its body.

`Exchange` is the only subclass and adds the answer; both are one object, so that a request costs no
extra calls. A connection reads requests ahead and answers them in order, each in its turn.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl

from penumbra.router.errors import GatewayError, RequestTooLarge, UnsupportedEncoding
from penumbra.router.gateway.api_keys import Caller
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.headers import CONTINUE, is_valid_request_id
from penumbra.router.gateway.hot_routes import credentials
from penumbra.router.gateway.incoming_request import IncomingRequest
from penumbra.router.upstream.port import Headers


class Connection(Protocol):
    """The client connection that an exchange belongs to."""

    transport: asyncio.Transport
    flow: FlowControl

    def exchange_complete(self, exchange: "RequestReader") -> None:
        """Go on after an exchange that has written all of its answer."""


class RequestReader(ABC):
    """Reads one request on a hot route.

    Args:
        connection: The client connection.
        gateway: The process that serves it.
        path: Target in origin form, query included.
        headers: Header values by name in lower case.
        lines: All header lines in order.
    """

    __slots__ = (
        "_awaits_continue", "_caller", "_connection", "_error", "_gateway", "_headers",
        "_is_http_1_0", "_is_turn", "_lines", "_parts", "_path", "_request", "_request_id", "_size",
        "keep_alive",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        gateway: Gateway,
        path: bytes,
        headers: dict[bytes, bytes],
        lines: Headers,
    ) -> None:
        self._connection = connection
        self._gateway = gateway
        self._path = path
        self._headers = headers
        self._lines = lines
        given = headers.get(b"x-request-id")
        is_given = given is not None and is_valid_request_id(given)
        self._request_id: bytes = given if given and is_given else gateway.next_request_id()
        self._caller: Caller | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._request: IncomingRequest | None = None
        self._error: GatewayError | None = None
        self._is_turn = False
        self._is_http_1_0 = False
        self._awaits_continue = False
        self.keep_alive = True

    @property
    def is_read(self) -> bool:
        """Whether the whole request has been read."""
        return self._request is not None

    @abstractmethod
    def send_error(self, error: GatewayError) -> None:
        """Answer with an error of the gateway's own."""

    @abstractmethod
    def _run(self, request: IncomingRequest) -> None:
        """Answer the request: it is read, admitted, and its turn has come."""

    def open(self, *, is_http_1_0: bool, keep_alive: bool) -> None:
        """Admit the request by its head, or refuse it before its body is read."""
        self._is_http_1_0 = is_http_1_0
        self.keep_alive = keep_alive and not is_http_1_0
        headers = self._headers
        try:
            self._caller = self._gateway.keys.identify(credentials(self._path, headers))
            if headers.get(b"content-encoding", b"identity").lower() != b"identity":
                raise UnsupportedEncoding("the body is compressed: send it as it is")
            length = headers.get(b"content-length")
            if length is not None and int(length) > self._gateway.limits.body_bytes:
                raise self._too_large()
        except GatewayError as error:
            self.reject(error)
            return
        self._awaits_continue = headers.get(b"expect", b"").lower() == b"100-continue"

    def receive(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._size += len(data)
        if self._error is not None:
            return
        if self._size > self._gateway.limits.body_bytes:
            self.reject(self._too_large())
            self._parts = []
        else:
            self._parts.append(data)

    def _too_large(self) -> RequestTooLarge:
        limit = self._gateway.limits.body_bytes
        return RequestTooLarge(f"the body is larger than {limit} bytes (limits.body_bytes)")

    def complete_body(self) -> None:
        """Close the body: the request is complete."""
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        request = IncomingRequest(self._path, self._headers, body, self._request_id, self._lines)
        self._request = request
        if self._is_turn and self._error is None:
            self._run(request)

    def take_turn(self) -> None:
        """Begin to answer: all earlier requests of the connection are answered."""
        self._is_turn = True
        if self._error is not None:
            self.send_error(self._error)
        elif self._request is not None:
            self._run(self._request)
        elif self._awaits_continue:
            self._gateway.writes.write(self._connection.transport, CONTINUE)

    def reject(self, error: GatewayError) -> None:
        """Answer with an error when it is this request's turn; the first error counts."""
        if self._error is not None or self._request is not None:
            return
        self._error = error
        if self._is_turn:
            self.send_error(error)
