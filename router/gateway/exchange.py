"""One request on a hot route and its answer, between the client connection and the dispatch.

An `Exchange` stands where uvicorn has a request-response cycle. It is driven by callbacks of its
connection (`penumbra.router.gateway.client_protocol`) and of its `Dispatch`: no task, no ASGI.
`RequestReader`, its base, reads the request; this file routes it and writes the answer.
"""

from penumbra.monitoring.answers import AnswerCode
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.errors import GatewayError
from penumbra.router.gateway.answer_timing import AnswerTiming
from penumbra.router.gateway.api_keys import Caller
from penumbra.router.gateway.body_peek import BodyPeek
from penumbra.router.gateway.compiled_table import Routed
from penumbra.router.gateway.error_bodies import error_body_for
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.headers import JSON, answer_head
from penumbra.router.gateway.incoming_request import IncomingRequest
from penumbra.router.gateway.proxy_pages import without_page
from penumbra.router.gateway.request_reader import Connection, RequestReader
from penumbra.router.gateway.request_trace import (
    BROKEN_OFF,
    CLIENT_GONE,
    RequestTrace,
    trace_request,
)
from penumbra.router.gateway.response_ids import RESPONSES, ask_home, dispatch_noting
from penumbra.router.mirror.session import MirrorSession
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.upstream.port import Headers

_NOT_NOW = frozenset({408, 429})
"""Refusals of the moment, which are held against a candidate's shadow answer as well."""
_BUILDS_OWN = frozenset({"upstream_garbage", "upstream_timeout"})
"""Errors that a build's failure is answered by; one that cannot be reached may be the network's."""


class Exchange(RequestReader):
    """One request on a hot route and its answer. The `Client` of its dispatch."""

    __slots__ = (
        "_dispatch", "_is_head_sent", "_mirror_session", "_routed", "_timing", "_trace",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        gateway: Gateway,
        path: bytes,
        headers: dict[bytes, bytes],
        lines: Headers,
    ) -> None:
        super().__init__(connection, gateway, path, headers, lines)
        self._dispatch: Dispatch | None = None
        self._is_head_sent = False
        self._routed: Routed | None = None
        self._mirror_session: MirrorSession | None = None
        self._timing = AnswerTiming()
        self._trace: RequestTrace | None = None  # only if the request is sampled

    def _begin(self, request: IncomingRequest) -> None:
        gateway = self._gateway
        self._timing.started_at = gateway.now()
        if gateway.tracer is not None:
            self._trace = trace_request(gateway.tracer, request, self._timing)

    def _run(self, request: IncomingRequest, peek: BodyPeek) -> None:
        gateway, caller = self._gateway, self._caller
        if caller is None:
            return
        if peek.previous_response_id is not None:
            asked = ask_home(gateway, peek, caller)
            if asked is not None:
                asked.add_done_callback(lambda _: self._run_later(request, peek, caller))
                return
        self._dispatch_to(request, peek, caller)

    def _run_later(self, request: IncomingRequest, peek: BodyPeek, caller: Caller) -> None:
        """Go on with a request whose home was asked for, if its client is still there."""
        if self.response_complete:
            return
        try:
            self._dispatch_to(request, peek, caller)
        except GatewayError as error:
            self.send_error(error)
        except Exception as fault:  # noqa: BLE001 - a client must not wait for it
            self._answer_fault(fault)

    def _dispatch_to(self, request: IncomingRequest, peek: BodyPeek, caller: Caller) -> None:
        """Decide the request and send it to a variant."""
        gateway, trace = self._gateway, self._trace
        routed = self._routed = gateway.route(request, peek, caller, trace)
        self._mirror_session = routed.mirror_session
        if request.path.startswith(RESPONSES):
            dispatch = self._dispatch = dispatch_noting(gateway, routed, self, trace, caller)
        else:
            dispatch = self._dispatch = gateway.dispatch(routed, self, trace)
        dispatch.start()
        if self._connection.flow.write_paused:  # an earlier answer is still unread
            dispatch.pause()

    def _abandon(self, error: GatewayError) -> None:
        if self.response_complete:  # another request of the connection would wait for ever
            self._connection.transport.abort()
            return
        if self._dispatch is not None:
            self._dispatch.abort()
        if self._is_head_sent:
            self.break_off()
        else:
            self.send_error(error)

    # The answer (see `Client`)

    def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a complete answer."""
        self._begin_answer(status)
        if self._mirror_session is not None:
            body = self._mirror_session.tap.whole(body)
            if status >= 400:
                self._mirror_session.tap.lose(ShedReason.ERROR)
                if status >= 500 or status in _NOT_NOW:
                    self._note_problem(f"status_{status}")
        if status >= 400:
            headers, body = without_page(self._path, status, headers, body)
        head = self._head(status, headers, len(body))
        self._gateway.writes.write(self._connection.transport, head + body)
        self._complete()

    def send_head(self, status: int, headers: Headers) -> None:
        """Write the head of an answer of unknown length: chunked, for HTTP/1.0 ended by closing."""
        self._begin_answer(status)
        self._is_head_sent = True
        self._gateway.writes.flush()
        self._connection.transport.write(self._head(status, headers, None))

    def send_piece(self, data: bytes) -> None:
        """Write a piece of the answer."""
        if self._mirror_session is not None:
            data = self._mirror_session.tap.feed(data)
            if not data:  # the piece held only what the tap takes out
                return
        self._timing.pieces += 1
        if self._is_http_1_0:
            self._connection.transport.write(data)
        else:  # `_write_piece`, without the call
            self._connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _write_piece(self, data: bytes) -> None:
        if not self._is_http_1_0:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.transport.write(data)

    def finish(self) -> None:
        """End the answer: it is complete."""
        if self._mirror_session is not None and (rest := self._mirror_session.tap.rest()):
            self._write_piece(rest)
        if not self._is_http_1_0:
            self._connection.transport.write(b"0\r\n\r\n")
        if self._dispatch is not None:
            session = self._mirror_session
            tapped = session.tap.count_tokens() if session is not None else None
            self._timing.complete_stream(self._dispatch, self._gateway.now(), tapped)
        self._complete()

    def note_first_data(self) -> None:
        """Note the first data of an answer whose head and comments were written before."""
        if self._dispatch is not None:
            self._timing.note_first_data(self._dispatch, self._gateway.now())

    def count_repeat(self) -> None:
        """Charge the tenant's rate for a request that another build is asked once more."""
        if self._tenant is not None:
            self._tenant.charge(self._gateway.now())

    def break_off(self) -> None:
        """Close the connection without the end of the answer, which cannot be completed."""
        self.keep_alive = False
        dispatch = self._dispatch
        # A client that did not read its answer broke it off itself.
        if dispatch is not None and not self._connection.flow.write_paused:
            dispatch.attempt.cells.count_broken_off()
            self._note_problem("died")
        if self._mirror_session is not None:
            self._mirror_session.tap.lose(ShedReason.BROKEN_OFF)
        self._complete(BROKEN_OFF)

    def send_error(self, error: GatewayError) -> None:
        """Write an error of the gateway's own in place of an answer."""
        self._gateway.metrics.errors.cell(error.reported_code).value += 1
        dispatch = self._dispatch
        if dispatch is not None and error.status >= 500:
            dispatch.attempt.cells.answers[AnswerCode.UNANSWERED].value += 1
        if not self.is_read:
            self.keep_alive = False
        if self._mirror_session is not None:
            self._mirror_session.tap.lose(ShedReason.ERROR)
            if error.reported_code in _BUILDS_OWN:
                self._note_problem(error.reported_code)
        body = error_body_for(self._path, error)
        headers = [*JSON, *error.headers]
        answer = self._head(error.status, headers, len(body)) + body
        self._gateway.writes.write(self._connection.transport, answer)
        self._complete(error.reported_code)

    def _note_problem(self, problem: str) -> None:
        """Note for the comparison that the build which was asked first, and alone, failed."""
        session, dispatch = self._mirror_session, self._dispatch
        if session is not None and dispatch is not None and dispatch.failover is None:
            session.problem = problem

    def _head(self, status: int, headers: Headers, length: int | None) -> bytes:
        routed, dispatch = self._routed, self._dispatch
        if self._trace is not None:
            self._trace.answer(status)
        about = b""
        if routed is not None and dispatch is not None:
            about = routed.answer_lines(dispatch.attempt.name, dispatch.failover)
        if self._gateway.origins is not None:
            about += self._gateway.origins.lines(self._headers.get(b"origin"))
        framing = b"" if self.keep_alive else b"connection: close\r\n"
        if length is None:
            framing += b"" if self._is_http_1_0 else b"transfer-encoding: chunked\r\n"
        elif status not in (204, 304):
            framing += b"content-length: %d\r\n" % length
        return answer_head(
            status, headers, b"x-request-id: %b\r\n%b%b\r\n" % (self._request_id, about, framing)
        )

    def _begin_answer(self, status: int) -> None:
        dispatch = self._dispatch
        if dispatch is None:
            return
        dispatch.attempt.cells.count_answer(status)
        self._timing.begin(dispatch, self._gateway.now())
        served, routed, caller = self._gateway.served, self._routed, self._caller
        if served is not None and routed is not None and caller is not None:
            variant, tenant = dispatch.attempt.name, caller.tenant.name
            attribution = routed.model.attribution(variant, dispatch.slice_name, tenant)
            served.remember(self._request_id, attribution)
            if self._own_id is not self._request_id:
                served.remember(self._own_id, attribution)

    def _complete(self, error: str | None = None) -> None:
        if self.response_complete:
            return
        self.response_complete = True
        self._leave()
        # Let go of it: it holds this exchange, and cycles wait for the collector.
        dispatch, self._dispatch = self._dispatch, None
        if dispatch is not None:
            self._release(dispatch)
            self._timing.end(dispatch, self._gateway.now())
        self._connection.exchange_complete(self)
        if dispatch is not None and self._mirror_session is not None:
            self._end_mirroring(self._mirror_session, dispatch)
        if self._trace is not None:
            self._trace.finish(dispatch, error)

    def _end_mirroring(self, session: MirrorSession, dispatch: Dispatch) -> None:
        self._mirror_session = None
        if dispatch.is_continued:
            session.tap.lose(ShedReason.CONTINUED)
        times = self._timing.times(dispatch.attempt.name, self._gateway.now())
        self._gateway.mirroring.end(session, times)

    def _release(self, dispatch: Dispatch) -> None:
        dispatch.close()
        self._gateway.timed.discard(dispatch)
        self._gateway.writes.in_flight -= 1

    # The connection

    def client_gone(self) -> None:
        """Abort the dispatch: the client went away before its answer was complete."""
        if self.response_complete:
            return
        self.response_complete = True
        self._leave()
        self._gateway.metrics.disconnects.value += 1
        dispatch, self._dispatch = self._dispatch, None
        if dispatch is not None:
            dispatch.abort()
            self._release(dispatch)
            if self._mirror_session is not None:
                self._mirror_session.has_left = True
                self._end_mirroring(self._mirror_session, dispatch)
        if self._trace is not None:
            self._trace.finish(dispatch, CLIENT_GONE)

    def pause(self) -> None:
        """Pause the upstream: the client does not read fast enough."""
        self._timing.was_paused = True
        if self._dispatch is not None and not self.response_complete:
            self._dispatch.pause()

    def resume(self) -> None:
        """Resume the upstream: the client has caught up."""
        if self._dispatch is not None and not self.response_complete:
            self._dispatch.resume()
