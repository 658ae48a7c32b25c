"""Carries out a continuation: counts tokens if needed, asks the baseline, splices the rest in.

It runs once for a stream that broke off, off the hot path. The decisions (what may be continued,
and with which request) are in `penumbra.router.dispatch.continuation`.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router import sse
from penumbra.router.dispatch import continuation
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.continuation import (
    KINDS,
    CannotContinueError,
    Kind,
    Progress,
    Splice,
)
from penumbra.router.upstream.calls import UpstreamError, fetch_json, json_request
from penumbra.router.upstream.port import Headers, Stream, UpstreamRequest

_OK = 200
_PROMPT_FIELDS = ("messages", "prompt", "continue_final_message", "add_generation_prompt")
_TEMPLATE_FIELDS = ("model", "chat_template", "chat_template_kwargs", "add_special_tokens")


def is_continuable(request: UpstreamRequest, sent: bytes) -> bool:
    """Whether a stream of which the client has `sent` can be continued and is not over yet."""
    try:
        kind = KINDS[request.path]
        continuation.check_continuable(kind, msgspec.json.decode(request.body))
        progress = continuation.read_progress(kind, sent)
    except (CannotContinueError, msgspec.DecodeError, TypeError, KeyError, AttributeError):
        return False
    return not (progress.is_done or progress.finish_reason)


class BrokenStream(Protocol):
    """The stream that broke off: takes the rest of its events and the end."""

    @property
    def slice_name(self) -> str:
        """The request's slice, for the attempt counters."""

    def send_event(self, event: bytes) -> None:
        """Send one event of the continuation to the client."""

    def finish_resumed(self) -> None:
        """End the answer: the continuation is complete."""

    def give_up(self) -> None:
        """Break the answer off: the stream cannot be completed."""


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
        self._splice: Splice | None = None
        self._buffer = b""
        self._is_paused = False
        self._is_over = False
        self._clock = clock
        self.progressed_at = -math.inf
        """Time of the last bytes; monotonic seconds."""

    def start(self) -> None:
        """Begin the continuation; never raises."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def abort(self) -> None:
        """Stop: the client is gone, or the time is over."""
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
        if self._stream is not None:
            self._stream.abort()

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

    async def _run(self) -> None:
        try:
            body = msgspec.json.decode(self._request.body)
            continuation.check_continuable(self._kind, body)
            progress = continuation.read_progress(self._kind, self._sent)
            await self._continue(body, progress)
        except (CannotContinueError, UpstreamError, msgspec.DecodeError, TypeError, KeyError):
            self._give_up()

    async def _continue(self, body: dict[str, Any], progress: Progress) -> None:
        wants_usage = continuation.wants_usage(body) and not progress.has_usage
        prompt_tokens = await self._count(body) if wants_usage else None
        splice = self._splice = Splice(self._kind, progress, prompt_tokens)
        rest = continuation.continuation_body(self._kind, body, progress)
        reason = "length" if continuation.is_exhausted(rest) else None
        if progress.is_done or progress.finish_reason or reason:
            usage = None
            if wants_usage:
                usage = splice.usage(
                    {"prompt_tokens": await self._count({**body, **rest}), "completion_tokens": 0}
                )
            self._close(None if progress.finish_reason else reason, usage)
            return
        encoded = msgspec.json.encode(rest)
        request = UpstreamRequest(self._request.path, self._request.headers, encoded)
        self._stream = self._baseline.upstream.stream(request, self)
        if self._is_paused:
            self._stream.pause()

    async def _count(self, body: dict[str, Any]) -> int:
        wanted = {name: body[name] for name in _TEMPLATE_FIELDS + _PROMPT_FIELDS if name in body}
        answer = await fetch_json(self._baseline.upstream, json_request("/tokenize", wanted))
        self.progressed_at = self._clock()
        return int(answer["count"])

    def _close(self, finish_reason: str | None, usage: dict[str, Any] | None) -> None:
        if self._is_over or self._splice is None:
            return
        self._is_over = True
        for event in self._splice.closing_events(finish_reason=finish_reason, usage=usage):
            self._broken.send_event(event)
        self._broken.finish_resumed()

    def _give_up(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._stream is not None:
            self._stream.abort()
        self._broken.give_up()

    # The receiver of the baseline's answer

    def on_head(self, status: int, headers: Headers) -> None:
        """See `Receiver`."""
        del headers
        if status != _OK:
            self._fail(Outcome.SERVER_ERROR)

    def on_body(self, data: bytes) -> None:
        """See `Receiver`."""
        self.progressed_at = self._clock()
        buffer = self._buffer + data
        length = sse.complete_length(buffer)
        self._buffer = buffer[length:]
        for payload in sse.payloads(buffer[:length]):
            if self._is_over:
                return
            self._pass_on(payload)

    def _pass_on(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._count_end(Outcome.OK)
            if self._stream is not None:
                self._stream.abort()
            self._close(None, None)
            return
        try:
            event = self._splice.rewrite(payload) if self._splice else None
        except (CannotContinueError, TypeError, AttributeError, ValueError):
            self._fail(Outcome.GARBAGE)
            return
        if event is not None:
            self._broken.send_event(event)

    def on_end(self) -> None:
        """See `Receiver`: the end without `[DONE]`."""
        self._fail(Outcome.DIED)

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""
        del detail
        self._fail(outcome)

    def _fail(self, outcome: Outcome) -> None:
        if not self._is_over:
            self._count_end(outcome)
        self._give_up()

    def _count_end(self, outcome: Outcome) -> None:
        cells = self._baseline.cells.of(self._broken.slice_name)
        cells.attempts[outcome].value += 1
