"""Timing of one answer: its first byte, its pace and its duration, for metrics and the local guard.

The watch of a rollout is told only about what the variant itself did: not about answers that
another variant began or ended, nor about streams that the client slowed down.
"""

from typing import Protocol

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.mirror.session import AnswerTimes

_PACED_PIECES = 4
"""The least pieces of a stream whose pace is measured."""


class Answered(Protocol):
    """The facts about a dispatch that say whose answer is timed."""

    @property
    def attempt(self) -> Attempt:
        """The attempt whose answer the client gets."""

    @property
    def slice_name(self) -> str:
        """The request's slice."""

    @property
    def is_continued(self) -> bool:
        """Whether another variant continued the stream."""

    failover: Outcome | None
    """How the first attempt failed, if another one answers."""


class AnswerTiming:
    """The times of one answer under way; monotonic seconds."""

    __slots__ = ("_first_byte_at", "pieces", "started_at", "trace_id", "was_paused")

    def __init__(self) -> None:
        self.started_at = 0.0
        """When the request was read."""
        self._first_byte_at = 0.0
        self.pieces = 0
        """Pieces of the stream so far."""
        self.was_paused = False
        """Whether the client did not keep up."""
        self.trace_id: str | None = None
        """Trace id of a sampled request, 32 hex digits: the exemplar of its latencies."""

    def begin(self, answered: Answered, now: float) -> None:
        """Record the first byte of the answer."""
        self._first_byte_at = now
        seconds = now - self.started_at
        attempt = answered.attempt
        cells = attempt.cells.of(answered.slice_name)
        cells.requests.value += 1
        cells.time_to_first_byte.observe(seconds, self.trace_id)
        if attempt.watch is not None and answered.failover is None:
            attempt.watch.record_first_byte(answered.slice_name, seconds)

    def complete_stream(self, answered: Answered, now: float) -> None:
        """Record the pace of a complete stream."""
        attempt, slice_name = answered.attempt, answered.slice_name
        cells = attempt.cells.of(slice_name)
        cells.pieces.value += self.pieces
        if self.pieces < _PACED_PIECES or self.was_paused:
            return
        if answered.failover is None and not answered.is_continued:
            seconds = (now - self._first_byte_at) / (self.pieces - 1)
            cells.time_per_output_token.observe(seconds, self.trace_id)
            if attempt.watch is not None:
                attempt.watch.record_pace(slice_name, seconds)

    def end(self, answered: Answered, now: float) -> None:
        """Record the duration: the client has the last byte, or will get no more."""
        cells = answered.attempt.cells.of(answered.slice_name)
        cells.duration.observe(now - self.started_at, self.trace_id)

    def times(self, variant: str, now: float) -> AnswerTimes:
        """The times that the comparison of the answer needs."""
        return AnswerTimes(variant, self.started_at, self._first_byte_at, now)
