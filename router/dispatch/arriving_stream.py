"""A request that is sent again until it arrives: the one for the rest of a broken stream.

A client waits in the middle of its answer, so nothing stands behind this request. A connect that
fails, or a proxy that has no server (503), happens just when a build dies: proxies are told of it
and start anew. Nothing has seen such a request, so it is sent again, a few times. After a 502 the
proxy's server may have seen it, and may have died of it: it is not sent again.
"""

import asyncio
from collections.abc import Callable

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.answer_check import is_of_a_proxy
from penumbra.router.dispatch.response_buffer import ResponseBuffer
from penumbra.router.upstream.port import Headers, Receiver, Stream, Upstream, UpstreamRequest

PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds before each further send."""
_NO_SERVER = 503
_MOST_BYTES = 64 * 1024
"""Of a page that may be a proxy's."""


class ArrivingStream:
    """One request at one upstream, sent until it arrives. A `Stream` for its caller.

    Args:
        upstream: The build that is asked.
        request: The request.
        receiver: Takes the answer, or the failure of the last send.
        count: Called with the outcome of each send that did not arrive and is made again.
    """

    def __init__(
        self,
        upstream: Upstream,
        request: UpstreamRequest,
        receiver: Receiver,
        count: Callable[[Outcome], None],
    ) -> None:
        self._upstream = upstream
        self._request = request
        self._receiver = receiver
        self._count = count
        self._pauses = iter(PAUSES)
        self._waiting: asyncio.TimerHandle | None = None
        self._page: tuple[int, Headers, ResponseBuffer] | None = None
        self._is_paused = False
        self._stream: Stream = upstream.stream(request, self)

    @property
    def was_sent(self) -> bool:
        """See `Stream`."""
        return self._stream.was_sent

    @property
    def was_reused(self) -> bool:
        """See `Stream`."""
        return self._stream.was_reused

    def abort(self) -> None:
        """See `Stream`."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._stream.abort()

    def pause(self) -> None:
        """See `Stream`."""
        self._is_paused = True
        self._stream.pause()

    def resume(self) -> None:
        """See `Stream`."""
        self._is_paused = False
        self._stream.resume()

    def on_head(self, status: int, headers: Headers) -> None:
        """See `Receiver`: what may be a proxy's page is read first."""
        if status == _NO_SERVER:
            self._page = status, headers, ResponseBuffer()
        else:
            self._receiver.on_head(status, headers)

    def on_body(self, data: bytes) -> None:
        """See `Receiver`."""
        if self._page is None:
            self._receiver.on_body(data)
            return
        _, _, page = self._page
        page.append(data)
        if page.length > _MOST_BYTES:
            self._stream.abort()
            self.on_end()

    def on_end(self) -> None:
        """See `Receiver`."""
        if self._page is None:
            self._receiver.on_end()
            return
        (status, headers, page), self._page = self._page, None
        if is_of_a_proxy(status, page.data) and self._will_repeat(Outcome.REFUSED):
            # Only the proxy has seen the request.
            self._request.budget.left = max(1, self._request.budget.left)
            return
        self._receiver.on_head(status, headers)
        if page.length:
            self._receiver.on_body(page.data)
        self._receiver.on_end()

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""
        self._page = None
        if self._stream.was_sent or not self._will_repeat(outcome):
            self._receiver.on_fail(outcome, detail)

    def _will_repeat(self, outcome: Outcome) -> bool:
        pause = next(self._pauses, None)
        if pause is None:
            return False
        self._count(outcome)
        self._waiting = asyncio.get_running_loop().call_later(pause, self._send_again)
        return True

    def _send_again(self) -> None:
        self._waiting = None
        self._stream = self._upstream.stream(self._request, self)
        if self._is_paused:
            self._stream.pause()
