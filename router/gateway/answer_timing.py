"""What is observed of one answer while its client gets it: when it began, and at what pace it went.

Whoever looks on for a rollout is told only of what the variant itself did: not of answers that
another one began or ended, nor of streams that the client slowed down.
"""

from typing import TYPE_CHECKING

from penumbra.router.mirror.session import AnswerTimes

if TYPE_CHECKING:
    from penumbra.router.dispatch.dispatch import Dispatch

_PACED_PIECES = 4
"""A stream of fewer pieces tells nothing of the time between two."""


class AnswerTiming:
    """One answer under way; monotonic seconds."""

    __slots__ = ("_first_byte_at", "pieces", "started_at", "trace_id", "was_paused")

    def __init__(self) -> None:
        self.started_at = 0.0
        """When the request was read."""
        self._first_byte_at = 0.0
        self.pieces = 0
        """Of a stream, so far."""
        self.was_paused = False
        """Whether the client did not keep up."""
        self.trace_id: str | None = None
        """Of a sampled request, 32 hex digits: latencies keep it as their exemplar."""

    def began(self, dispatch: "Dispatch", now: float) -> None:
        """The answer begins."""
        self._first_byte_at = now
        seconds = now - self.started_at
        attempt = dispatch.attempt
        cells = attempt.cells.of(dispatch.slice_name)
        cells.requests.value += 1
        cells.time_to_first_byte.observe(seconds, self.trace_id)
        if attempt.watch is not None and dispatch.failover is None:
            attempt.watch.first_byte(dispatch.slice_name, seconds)

    def streamed(self, dispatch: "Dispatch", now: float) -> None:
        """A stream is complete."""
        attempt, slice_name = dispatch.attempt, dispatch.slice_name
        cells = attempt.cells.of(slice_name)
        cells.pieces.value += self.pieces
        if self.pieces < _PACED_PIECES or self.was_paused:
            return
        if dispatch.failover is None and not dispatch.is_continued:
            seconds = (now - self._first_byte_at) / (self.pieces - 1)
            cells.time_per_output_token.observe(seconds, self.trace_id)
            if attempt.watch is not None:
                attempt.watch.piece(slice_name, seconds)

    def ended(self, dispatch: "Dispatch", now: float) -> None:
        """The client has the answer's last byte, or will get no more."""
        cells = dispatch.attempt.cells.of(dispatch.slice_name)
        cells.duration.observe(now - self.started_at, self.trace_id)

    def ending(self, variant: str, now: float) -> AnswerTimes:
        """The times for a comparison of the answer."""
        return AnswerTimes(variant, self.started_at, self._first_byte_at, now)
