"""The client's side of one request on a hot route: read it, admit it, write its answer.

An `Exchange` stands where uvicorn has a request-response cycle. It is driven by callbacks of its
connection (`penumbra.router.gateway.client_protocol`), and by those of its `Dispatch`; no task, no
ASGI.
"""

from typing import TYPE_CHECKING

from penumbra.router.errors import GatewayError, RequestTooLarge, UnsupportedEncoding
from penumbra.router.gateway.answer_timing import AnswerTiming
from penumbra.router.gateway.api_keys import Caller
from penumbra.router.gateway.headers import CONTINUE, JSON, answer_head, is_valid_request_id
from penumbra.router.gateway.request_trace import (
    BROKEN_OFF,
    CLIENT_GONE,
    RequestTrace,
    trace_request,
)
from penumbra.router.mirror.session import MirrorSession, ShedReason
from penumbra.router.upstream.port import Headers

if TYPE_CHECKING:
    from penumbra.router.dispatch.dispatch import Dispatch
    from penumbra.router.gateway.client_protocol import GatewayProtocol
    from penumbra.router.gateway.compiled_table import Routed
    from penumbra.router.gateway.gateway import Gateway


class Exchange:
    """One request on a hot route and its answer. The `Client` of its dispatch."""

    __slots__ = (
        "_awaits_continue", "_connection", "_dispatch", "_error", "_gateway", "_is_body_complete",
        "_is_http_1_0", "_is_turn", "_observation", "_parts", "_routed", "_size", "_tapped", "body",
        "caller", "headers", "keep_alive", "path", "request_id", "response_complete", "trace",
    )  # fmt: skip

    def __init__(
        self,
        connection: "GatewayProtocol",
        gateway: "Gateway",
        path: bytes,
        headers: dict[bytes, bytes],
    ) -> None:
        self._connection = connection
        self._gateway = gateway
        self.path = path
        """Target in origin form, query included."""
        self.headers = headers
        self.keep_alive = True
        self.response_complete = False
        self.body = b""
        self.caller: Caller | None = None
        given = self.headers.get(b"x-request-id")
        is_given = given is not None and is_valid_request_id(given)
        self.request_id: bytes = given if given and is_given else gateway.next_request_id()
        self._parts: list[bytes] = []
        self._size = 0
        self._error: GatewayError | None = None
        self._dispatch: Dispatch | None = None
        self._routed: Routed | None = None
        self._tapped: MirrorSession | None = None
        self._observation = AnswerTiming()
        self.trace: RequestTrace | None = None  # only if the request is sampled
        self._is_body_complete = False
        self._is_turn = False
        self._is_http_1_0 = False
        self._awaits_continue = False

    # The request

    def open(self, *, is_http_1_0: bool, keep_alive: bool) -> None:
        """The head is there: admit the request or refuse it before its body is read."""
        self._is_http_1_0 = is_http_1_0
        self.keep_alive = keep_alive and not is_http_1_0
        headers = self.headers
        try:
            self.caller = self._gateway.keys.identify(headers.get(b"authorization"))
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
        """A piece of the body."""
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
        """The request is complete."""
        self._is_body_complete = True
        parts = self._parts
        self.body = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._is_turn and self._error is None:
            self._run()

    def take_turn(self) -> None:
        """All earlier requests of the connection are answered."""
        self._is_turn = True
        if self._error is not None:
            self.send_error(self._error)
        elif self._is_body_complete:
            self._run()
        elif self._awaits_continue:
            self._gateway.writes.write(self._connection.transport, CONTINUE)

    def reject(self, error: GatewayError) -> None:
        """Answer with an error, when it is this request's turn."""
        if self._error is not None or self._dispatch is not None:
            return
        self._error = error
        if self._is_turn:
            self.send_error(error)

    @property
    def is_read(self) -> bool:
        """Whether the whole request has been read."""
        return self._is_body_complete

    def _run(self) -> None:
        gateway = self._gateway
        self._observation.started_at = now = gateway.now()
        if self.caller is None:
            return
        if gateway.tracer is not None:
            self.trace = trace_request(gateway.tracer, self, self._observation)
        try:
            self.caller.tenant.enter(now)
        except GatewayError as error:
            self.send_error(error)
            return
        try:
            routed = self._routed = gateway.route(self, self.caller)
        except GatewayError as error:
            self.caller.tenant.leave()
            self.send_error(error)
            return
        self._tapped = routed.tapped
        dispatch = self._dispatch = gateway.dispatch(routed, self)
        dispatch.start()
        if self._connection.flow.write_paused:  # an earlier answer is still unread
            dispatch.pause()

    # The answer (see `Client`)

    def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete answer."""
        self._begin_answer()
        if self._tapped is not None:
            body = self._tapped.tap.whole(body)
            if status >= 400:
                self._tapped.tap.lose(ShedReason.ERROR)
        head = self._head(status, headers, len(body))
        self._gateway.writes.write(self._connection.transport, head + body)
        self._complete()

    def send_head(self, status: int, headers: Headers) -> None:
        """The head of an answer of unknown length: chunked, or ended by closing for HTTP/1.0."""
        self._begin_answer()
        self._gateway.writes.flush()
        self._connection.transport.write(self._head(status, headers, None))

    def send_piece(self, data: bytes) -> None:
        """A piece of it."""
        if self._tapped is not None:
            data = self._tapped.tap.feed(data)
            if not data:  # nothing the client would have got
                return
        self._observation.pieces += 1
        self._write_piece(data)

    def _write_piece(self, data: bytes) -> None:
        if self._is_http_1_0:
            self._connection.transport.write(data)
        else:
            self._connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self) -> None:
        """The answer is complete."""
        if self._tapped is not None and (rest := self._tapped.tap.rest()):
            self._write_piece(rest)
        if not self._is_http_1_0:
            self._connection.transport.write(b"0\r\n\r\n")
        if self._dispatch is not None:
            self._observation.streamed(self._dispatch, self._gateway.now())
        self._complete()

    def break_off(self) -> None:
        """The answer cannot be completed: close the connection without its end."""
        self.keep_alive = False
        if self._tapped is not None:
            self._tapped.tap.lose(ShedReason.BROKEN_OFF)
        self._complete(BROKEN_OFF)

    def send_error(self, error: GatewayError) -> None:
        """An error of the gateway's own."""
        self._gateway.metrics.errors.cell(error.reported_code).value += 1
        if not self._is_body_complete:
            self.keep_alive = False
        if self._tapped is not None:
            self._tapped.tap.lose(ShedReason.ERROR)
        body = error.body
        headers = [*JSON, *error.headers]
        answer = self._head(error.status, headers, len(body)) + body
        self._gateway.writes.write(self._connection.transport, answer)
        self._complete(error.reported_code)

    def _head(self, status: int, headers: Headers, length: int | None) -> bytes:
        routed, dispatch = self._routed, self._dispatch
        if self.trace is not None:
            self.trace.answered(status)
        about = b""
        if routed is not None and dispatch is not None:
            about = routed.answer_lines(dispatch.attempt.name, dispatch.failover)
        framing = b"" if self.keep_alive else b"connection: close\r\n"
        if length is None:
            framing += b"" if self._is_http_1_0 else b"transfer-encoding: chunked\r\n"
        elif status not in (204, 304):
            framing += b"content-length: %d\r\n" % length
        return answer_head(
            status, headers, b"x-request-id: %b\r\n%b%b\r\n" % (self.request_id, about, framing)
        )

    def _begin_answer(self) -> None:
        dispatch = self._dispatch
        if dispatch is None:
            return
        self._observation.began(dispatch, self._gateway.now())
        served, routed, caller = self._gateway.served, self._routed, self.caller
        if served is not None and routed is not None and caller is not None:
            variant, tenant = dispatch.attempt.name, caller.tenant.name
            server = routed.model.server(variant, dispatch.slice_name, tenant)
            served.remember(self.request_id, server)

    def _complete(self, error: str | None = None) -> None:
        if self.response_complete:
            return
        self.response_complete = True
        # Let go of it: it holds this exchange, and cycles wait for the collector.
        dispatch, self._dispatch = self._dispatch, None
        if dispatch is not None:
            self._release(dispatch)
            self._observation.ended(dispatch, self._gateway.now())
        self._connection.exchange_complete(self)
        if dispatch is not None and self._tapped is not None:
            self._hand_over(self._tapped, dispatch)
        if self.trace is not None:
            self.trace.finish(self, dispatch, error)

    def _hand_over(self, tapped: MirrorSession, dispatch: "Dispatch") -> None:
        self._tapped = None
        if dispatch.is_continued:
            tapped.tap.lose(ShedReason.CONTINUED)
        ending = self._observation.ending(dispatch.attempt.name, self._gateway.now())
        self._gateway.mirroring.end(tapped, ending)

    def _release(self, dispatch: "Dispatch") -> None:
        self._gateway.timed.discard(dispatch)
        self._gateway.writes.in_flight -= 1
        if self.caller is not None:
            self.caller.tenant.leave()

    # The connection

    def client_gone(self) -> None:
        """The client went away before its answer was complete."""
        if self.response_complete:
            return
        self.response_complete = True
        self._gateway.metrics.disconnects.value += 1
        dispatch, self._dispatch = self._dispatch, None
        if dispatch is not None:
            dispatch.abort()
            self._release(dispatch)
            if self._tapped is not None:
                self._tapped.tap.lose(ShedReason.CLIENT_GONE)
                self._hand_over(self._tapped, dispatch)
        if self.trace is not None:
            self.trace.finish(self, dispatch, CLIENT_GONE)

    def pause(self) -> None:
        """The client does not read fast enough."""
        self._observation.was_paused = True
        if self._dispatch is not None and not self.response_complete:
            self._dispatch.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._dispatch is not None and not self.response_complete:
            self._dispatch.resume()
