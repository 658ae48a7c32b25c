"""The request side of an exchange: admits a request by its head, then collects and reads its body.

`Exchange` is the only subclass and adds the answer; both are one object, so that a request costs no
extra calls. A connection reads requests ahead and answers them in order, each in its turn.

A request takes a place of its tenant when its turn comes, before its body is read on, and leaves it
when its answer is complete or its client is gone, whatever happens in between. One that waits for
its turn holds no place, and only the beginning of its body.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl

from penumbra.router.errors import (
    GatewayError,
    InternalError,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedEncoding,
)
from penumbra.router.gateway.api_keys import Caller, Tenant
from penumbra.router.gateway.body_peek import AT_ONCE_BYTES, BodyPeek, read_at_once
from penumbra.router.gateway.form_body import FormBody
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.headers import CONTINUE, is_valid_request_id
from penumbra.router.gateway.hot_routes import AUDIO, credentials
from penumbra.router.gateway.incoming_request import IncomingRequest
from penumbra.router.gateway.large_body import LargeBody
from penumbra.router.upstream.port import Headers

log = logging.getLogger(__name__)

_MOST_PIECES = 4096
"""Pieces of a body that are kept as they came; more, which are small, are joined at once."""
_WAITING_BYTES = 64 * 1024
"""Bytes of a body behind which a connection is not read on before the request's turn."""


class Connection(Protocol):
    """The client connection that an exchange belongs to."""

    transport: asyncio.Transport
    flow: FlowControl
    loop: asyncio.AbstractEventLoop
    deadline: float

    def identify(self, authorization: bytes | None) -> Caller:
        """Find the caller that an `authorization` header names; raises InvalidKey."""

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
        "_is_http_1_0", "_is_turn", "_large_body", "_lines", "_own_id", "_parts", "_path",
        "_request", "_request_id", "_size", "_tenant", "keep_alive", "response_complete",
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
        self._own_id = gateway.next_request_id()
        self._request_id: bytes = given if given and is_given else self._own_id
        self._caller: Caller | None = None
        self._tenant: Tenant | None = None  # the tenant that it has a place of
        self._parts: list[bytes | bytearray] = []
        self._size = 0
        self._request: IncomingRequest | None = None
        self._large_body: LargeBody | FormBody | None = None
        self._error: GatewayError | None = None
        self._is_turn = False
        self._is_http_1_0 = False
        self._awaits_continue = False
        self.keep_alive = True
        self.response_complete = False

    @property
    def is_read(self) -> bool:
        """Whether the whole request has been read."""
        return self._request is not None

    @abstractmethod
    def send_error(self, error: GatewayError) -> None:
        """Answer with an error of the gateway's own."""

    @abstractmethod
    def _begin(self, request: IncomingRequest) -> None:
        """Note that the request is read and that its turn has come."""

    @abstractmethod
    def _run(self, request: IncomingRequest, peek: BodyPeek) -> None:
        """Answer the request.

        Raises:
            GatewayError: The answer is this error.
        """

    @abstractmethod
    def _abandon(self, error: GatewayError) -> None:
        """End the answer after a fault: with an error, or where it has begun by breaking it off."""

    # The request, as it comes

    def open(self, *, is_http_1_0: bool, keep_alive: bool) -> None:
        """Look at the request's head; refuse it before its body is read if that is enough."""
        self._is_http_1_0 = is_http_1_0
        self.keep_alive = keep_alive and not is_http_1_0
        headers = self._headers
        try:
            self._caller = self._connection.identify(credentials(self._path, headers))
            coding = headers.get(b"content-encoding")
            if coding is not None and coding.lower() != b"identity":
                raise UnsupportedEncoding("the body is compressed: send it as it is")
            length = headers.get(b"content-length")
            if length is not None and int(length) > self._gateway.limits.body_bytes:
                raise self._too_large()
        except GatewayError as error:
            self.reject(error)
            return
        expected = headers.get(b"expect")
        self._awaits_continue = expected is not None and expected.lower() == b"100-continue"

    def take_turn(self) -> None:
        """Begin to answer: all earlier requests of the connection are answered."""
        self._is_turn = True
        now = self._gateway.now()
        if self._error is None and self._caller is not None:
            try:
                self._caller.tenant.enter(now)
                self._tenant = self._caller.tenant
            except GatewayError as error:
                self._error = error
        if self._error is not None:
            self._refuse()
        elif self._request is not None:  # it waited; and answers of many must not nest
            self._connection.loop.call_soon(self._start, self._request)
        else:
            self._connection.deadline = now + self._gateway.limits.body_seconds
            if self._awaits_continue:
                self._gateway.writes.write(self._connection.transport, CONTINUE)

    def receive(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._size += len(data)
        if self._error is not None:
            return
        if self._size > self._gateway.limits.body_bytes:
            self.reject(self._too_large())
            return
        parts = self._parts
        if len(parts) < _MOST_PIECES:
            parts.append(data)
        elif isinstance(parts[-1], bytearray):
            parts[-1] += data
        else:
            parts.append(bytearray(data))
        if not self._is_turn and self._size > _WAITING_BYTES:
            self._connection.flow.pause_reading()

    def complete_body(self) -> None:
        """Close the body: the request is complete."""
        parts, self._parts = self._parts, []
        only = parts[0] if len(parts) == 1 else None
        body = only if isinstance(only, bytes) else b"".join(parts)
        request = IncomingRequest(
            self._path, self._headers, body, self._request_id, self._lines, self._own_id
        )
        self._request = request
        if self._is_turn and self._error is None:
            self._start(request)

    def reject(self, error: GatewayError) -> None:
        """Answer with an error when it is this request's turn; the first error counts."""
        if self._error is not None or self._request is not None:
            return
        if isinstance(error, RequestTimeout) and not self._is_turn:
            return  # it is not read on before its turn, so its time has not begun
        self._error = error
        self._parts = []
        if self._is_turn:
            self._refuse()

    def _too_large(self) -> RequestTooLarge:
        limit = self._gateway.limits.body_bytes
        return RequestTooLarge(f"the body is larger than {limit} bytes (limits.body_bytes)")

    def _refuse(self) -> None:
        # Later, when all that has come is parsed: what is here as a whole keeps its connection.
        self._connection.loop.call_soon(self._send_refusal)

    def _send_refusal(self) -> None:
        error = self._error
        if error is None or self.response_complete:
            return
        try:
            self.send_error(error)
        except Exception as fault:  # noqa: BLE001 - a connection must not hang for it
            self._answer_fault(fault)

    # The request, once it is read

    def _start(self, request: IncomingRequest) -> None:
        if self.response_complete:  # the client is gone
            return
        try:
            self._begin(request)
            if request.path.startswith(AUDIO):
                self._large_body = FormBody(request.headers.get(b"content-type"), request.body)
            elif (peek := read_at_once(request.body)) is not None:
                self._run(request, peek)
                return
            else:
                self._large_body = LargeBody(request.body)
        except GatewayError as error:
            self.send_error(error)
            return
        except Exception as fault:  # noqa: BLE001 - a client must not wait for it
            self._answer_fault(fault)
            return
        if len(request.body) > AT_ONCE_BYTES or not self._read_on():
            self._gateway.reading.add(self._read_on)

    def _read_on(self) -> bool:
        """Read on in a large body, for a bounded time; return whether that is over."""
        large, request = self._large_body, self._request
        if large is None or request is None:
            return True
        if self.response_complete:  # the client is gone
            large.close()
            return True
        try:
            peek = large.step()
            if peek is None:
                return False
            self._large_body = None
            self._run(request, peek)
        except GatewayError as error:
            self.send_error(error)
        except Exception as fault:  # noqa: BLE001 - a client must not wait for it
            self._answer_fault(fault)
        return True

    def _answer_fault(self, fault: Exception) -> None:
        """Answer a fault of the gateway's own: no request hangs, and no place is lost."""
        log.error("request_fault", exc_info=fault)
        try:
            self._abandon(InternalError("the gateway failed on this request; it is logged"))
        except Exception:
            log.exception("request_fault")
            self._connection.transport.abort()
        self._leave()

    def _leave(self) -> None:
        """Leave the tenant's place, once."""
        tenant, self._tenant = self._tenant, None
        if tenant is not None:
            tenant.leave()
