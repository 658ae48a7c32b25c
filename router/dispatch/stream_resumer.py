"""Carries out a continuation: asks the baseline for the rest, splices it in, counts tokens.

It runs once for a stream that broke off, off the hot path. The decisions (what may be continued,
and with which request) are in `penumbra.router.dispatch.continuation` and its neighbours. The text
goes on first: it waits for a count of tokens only where the request for the rest needs one, and not
for long.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router import sse
from penumbra.router.dispatch.arriving_stream import ArrivingStream
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.broken_stream import BrokenStream
from penumbra.router.dispatch.continuation import KINDS, CannotContinueError, Kind
from penumbra.router.dispatch.continuation_request import Prefix
from penumbra.router.dispatch.continued_answer import ContinuedAnswer, read_answer
from penumbra.router.dispatch.response_buffer import ResponseBuffer
from penumbra.router.dispatch.splice import DivergedError, Splice
from penumbra.router.dispatch.stream_end import StreamEnd, end_of
from penumbra.router.upstream.port import Headers, Stream, UpstreamRequest

log = logging.getLogger(__name__)

_OK = 200
_REFUSALS = range(400, 500)


class StreamResumer:
    """Completes one stream from the baseline. The receiver of the baseline's answer.

    Args:
        broken: The stream to complete.
        baseline: The attempt that is asked for the rest.
        request: The client's request.
        sent: The bytes of the stream that the client has, whole events only.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        broken: BrokenStream,
        baseline: Attempt,
        request: UpstreamRequest,
        sent: bytes,
        clock: Callable[[], float],
    ) -> None:
        self._broken = broken
        self._baseline = baseline
        self._request = request
        self._sent = sent
        self._kind: Kind = KINDS[request.path]
        self._stream: Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._answer: ContinuedAnswer | None = None
        self._splice: Splice | None = None
        self._fallback: Prefix | None = None
        self._buffer = ResponseBuffer()
        self._waiting: list[bytes] = []
        self._late_end: Outcome | None = None
        self._is_counting = False
        self._is_paused = False
        self._is_over = False
        self._detail = ""
        self._clock = clock
        self.progressed_at = -math.inf
        """Time of the last event; monotonic seconds."""
        self.outcome: Outcome | None = None
        """How the baseline's answer ended, once it has; None if it was not asked."""

    def start(self) -> None:
        """Begin the continuation; never raises."""
        self._spawn(self._run())

    def abort(self) -> None:
        """Stop: the client is gone, or the time is over."""
        self._is_over = True
        self._stop()

    def pause(self) -> None:
        """Pause the upstream: the client does not keep up."""
        self._is_paused = True
        if self._stream is not None:
            self._stream.pause()

    def resume(self) -> None:
        """Resume the upstream: the client has caught up."""
        self._is_paused = False
        if self._stream is not None:
            self._stream.resume()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._to_end(work))

    async def _to_end(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except CannotContinueError:
            self._give_up()
        except Exception:
            log.exception("continuation_failed")
            self._give_up()

    async def _run(self) -> None:
        sent, self._sent = self._sent, b""
        try:
            answer = await read_answer(self._baseline.upstream, self._request, sent)
        except CannotContinueError:
            if end_of(self._request.path, sent) is not StreamEnd.FINISHED:
                raise
            self._close([sse.DONE])  # nothing is missing that could be made up
            return
        self._answer = answer
        if answer.is_complete:
            self._close(await answer.missing_events())
            return
        prefix = answer.prefix
        self._fallback = answer.fallback(prefix)
        await self._ask(answer, prefix)

    async def _ask(self, answer: ContinuedAnswer, prefix: Prefix) -> None:
        """Ask for the rest after `prefix`; count the prompt's tokens beside it, if they matter."""
        tokens = await answer.count_prefix(prefix)
        splice = self._splice = answer.splice(prefix, tokens)
        if answer.is_exhausted(tokens):
            self._close(answer.exhausted_events(tokens))
            return
        if not (answer.lacks_prompt_count and prefix.text):
            self._send(answer.request_for_rest(prefix, tokens))
            return
        self._is_counting = True
        count = asyncio.create_task(answer.count_prompt())
        try:
            await asyncio.sleep(0)  # both are sent at once
            self._send(answer.request_for_rest(prefix, tokens))
            await count
        finally:
            count.cancel()
        splice.prompt_tokens = answer.prompt_tokens
        self._is_counting = False
        self._pass_on_waiting()

    def _send(self, request: UpstreamRequest) -> None:
        upstream = self._baseline.upstream
        self._stream = ArrivingStream(upstream, request, self, self._count_attempt)
        if self._is_paused:
            self._stream.pause()

    def _fall_back(self, answer: ContinuedAnswer, prefix: Prefix) -> None:
        """Go on from all text that was sent: the baseline does not make its end again."""
        self._stop()
        self._fallback = self._splice = None
        # The server has answered: this is no second try of a request that may have killed it.
        self._request.budget.left = max(1, self._request.budget.left)
        self._buffer = ResponseBuffer()
        self._waiting, self._late_end, self._is_counting = [], None, False
        self._spawn(self._ask(answer, prefix))

    def _stop(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self._stream is not None:
            self._stream.abort()
            self._stream = None

    def _close(self, events: list[bytes]) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._stop()
        for event in events:
            self._broken.send_event(event)
        self._broken.finish_resumed()

    def _give_up(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._stop()
        self._broken.give_up()

    # The receiver of the baseline's answer

    def on_head(self, status: int, headers: Headers) -> None:
        """See `Receiver`."""
        del headers
        if status in _REFUSALS and self._fallback is not None and self._answer is not None:
            self._fall_back(self._answer, self._fallback)
        elif status != _OK:
            self._fail(Outcome.SERVER_ERROR)

    def on_body(self, data: bytes) -> None:
        """See `Receiver`."""
        buffer = self._buffer
        if self._is_over:
            return
        if not buffer.add(data):
            if buffer.is_over_limit:
                self._fail(Outcome.GARBAGE)
            return
        events = buffer.take(sse.complete_length(buffer.data))
        for payload in sse.payloads(events):
            self.progressed_at = self._clock()
            if self._is_over or buffer is not self._buffer:
                return
            self._take(payload)

    def _take(self, payload: bytes) -> None:
        splice = self._splice
        if self._waiting or splice is None:
            self._waiting.append(payload)
            return
        if payload == b"[DONE]":
            self._finish()
            return
        try:
            event = splice.read(payload)
            if self._is_counting and event.get("usage"):
                self._waiting.append(payload)
                return
            data = splice.rewrite(event)
        except DivergedError:
            self._diverge()
        except (CannotContinueError, TypeError, ValueError, RecursionError):
            self._fail(Outcome.GARBAGE)
        else:
            if data is not None:
                self._broken.send_event(data)

    def _diverge(self) -> None:
        if self._fallback is None or self._answer is None:
            self._fail(Outcome.GARBAGE)
        else:
            self._fall_back(self._answer, self._fallback)

    def _pass_on_waiting(self) -> None:
        waiting, self._waiting, splice = self._waiting, [], self._splice
        for payload in waiting:
            if not self._is_over and self._splice is splice:
                self._take(payload)
        if self._late_end is not None:
            self._end(self._late_end)

    def on_end(self) -> None:
        """See `Receiver`: the end without `[DONE]`."""
        self._end(Outcome.DIED)

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""
        self._detail = detail
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        if self._waiting:
            self._late_end = outcome
        elif self._splice is not None and self._splice.is_finished:
            self._finish()
        else:
            self._fail(outcome)

    def _finish(self) -> None:
        if not self._is_over:
            self._count_end(Outcome.OK)
        self._close([sse.DONE])

    def _fail(self, outcome: Outcome) -> None:
        if not self._is_over:
            self._count_end(outcome)
            log.warning(
                "continuation_given_up",
                extra={
                    "variant": self._baseline.name,
                    "outcome": outcome.value,
                    "detail": self._detail,
                },
            )
        self._give_up()

    def _count_end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._count_attempt(outcome)

    def _count_attempt(self, outcome: Outcome) -> None:
        cells = self._baseline.cells.of(self._broken.slice_name)
        cells.attempts[outcome].value += 1
