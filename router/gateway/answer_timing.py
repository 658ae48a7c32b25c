"""Timing of one answer: its first data, its pace and its duration, for metrics and the local guard.

The watch of a rollout is told only about what the variant itself did: not about answers that
another variant began or ended, nor about streams that the client slowed down. The pace of a stream
is the time for a token. Its tokens are those that it tells (its usage, or the ids of a tapped one),
else its events times the tokens of an event, as the build's other streams told them.
"""

import re
from typing import Protocol

import msgspec

from penumbra.monitoring.observations import Signal
from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.metrics import SliceCells
from penumbra.router.mirror.session import AnswerTimes

_PACED_PIECES = 4
"""The least pieces of a stream whose pace is measured."""
_USAGE = re.compile(rb'"(?:completion|output)_tokens" ?: ?(\d{1,9})')


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

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer is a stream of events."""

    @property
    def has_data(self) -> bool:
        """Whether data of the answer has come, and not only its head and comments."""

    @property
    def last_events(self) -> bytes:
        """The last events of a stream, which may tell its tokens."""

    failover: Outcome | None
    """How the first attempt failed, if another one answers."""


class AnswerTiming(msgspec.Struct):
    """The times of one answer under way; monotonic seconds."""

    started_at: float = 0.0
    """When the request was read."""
    pieces: int = 0
    """Pieces of the stream so far."""
    was_paused: bool = False
    """Whether the client did not keep up."""
    trace_id: str | None = None
    """Trace id of a sampled request, 32 hex digits: the exemplar of its latencies."""
    latencies: tuple[str, ...] = ()
    """Latencies that a shadow answer's may be held against; see `MirrorFrame.latencies`."""
    _first_byte_at: float = 0.0
    _cells: SliceCells | None = None
    """The cells of the build whose answer the client gets."""

    def begin(self, answered: Answered, now: float) -> None:
        """Record the head of the answer, with its first data unless that is still to come."""
        cells = self._cells = answered.attempt.cells.of(answered.slice_name)
        cells.requests.value += 1
        if answered.has_data:
            self.note_first_data(answered, now)
        else:
            self._first_byte_at = now

    def note_first_data(self, answered: Answered, now: float) -> None:
        """Record the first data of the answer."""
        self._first_byte_at = now
        seconds = now - self.started_at
        if self._cells is not None:
            self._cells.time_to_first_byte.observe(seconds, self.trace_id)
        watch = answered.attempt.watch
        if watch is not None and answered.failover is None:
            is_stream = answered.is_event_stream
            if watch.record_first_byte(answered.slice_name, seconds, is_stream=is_stream):
                self.latencies += (Signal.TTFT.value,)

    def complete_stream(self, answered: Answered, now: float, tapped_tokens: int | None) -> None:
        """Record the pace of a complete stream.

        Args:
            answered: The dispatch.
            now: Monotonic seconds.
            tapped_tokens: Token ids that a tap counted; None if it was not tapped.
        """
        attempt, slice_name = answered.attempt, answered.slice_name
        cells, pieces = attempt.cells.of(slice_name), self.pieces
        cells.pieces.value += pieces
        if pieces < _PACED_PIECES or self.was_paused:
            return
        if answered.failover is not None or answered.is_continued:
            return
        told = _told_tokens(answered.last_events) or tapped_tokens
        if told:
            attempt.record.add_stream(told, pieces)
        ratio = attempt.record.tokens_a_piece
        tokens = told or pieces * (ratio or 1.0)
        seconds = (now - self._first_byte_at) / max(1.0, tokens - 1)
        cells.time_per_output_token.observe(seconds, self.trace_id)
        # Events of unknown size say nothing of a build's pace.
        watch = None if ratio is None else attempt.watch
        if watch is not None and watch.record_pace(slice_name, seconds):
            self.latencies += (Signal.TPOT.value,)

    def end(self, answered: Answered, now: float) -> None:
        """Record the duration: the client has the last byte, or will get no more."""
        cells = self._cells or answered.attempt.cells.of(answered.slice_name)
        cells.duration.observe(now - self.started_at, self.trace_id)

    def times(self, variant: str, now: float) -> AnswerTimes:
        """The times that the comparison of the answer needs."""
        return AnswerTimes(
            variant, self.started_at, self._first_byte_at, now, self.was_paused, self.latencies
        )


def _told_tokens(events: bytes) -> int | None:
    """The tokens of the answer that its last events tell."""
    found = _USAGE.findall(events)
    return int(found[-1]) if found else None
