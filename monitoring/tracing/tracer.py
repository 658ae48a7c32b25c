"""Decides which requests are traced and records their spans.

A span is recorded when it is over, from times that are measured in any case, and handed to a sink
that never waits. Reading order: Tracer.sample, Tracer.record.
"""

import random
from collections.abc import Callable

from penumbra.monitoring.tracing.context import (
    TraceContext,
    is_plainly_unsampled,
    read_traceparent,
)
from penumbra.monitoring.tracing.span import Span

_NANO = 1_000_000_000
_RATIO_BITS = 64


class Tracer:
    """Sampling and recording of one process.

    Args:
        ratio: Share of the traces that begin here which are sampled.
        is_parent_based: Whether a request's own context decides, if it has one.
        sink: Takes spans; must neither wait nor raise.
        monotonic: Seconds; the clock of the times that spans are made of.
        wall_ns: Unix nanoseconds.
        is_latest_semconv: Whether names that the GenAI conventions have given up are left out.
    """

    def __init__(
        self,
        ratio: float,
        sink: Callable[[Span], None],
        monotonic: Callable[[], float],
        wall_ns: Callable[[], int],
        *,
        is_parent_based: bool = True,
        is_latest_semconv: bool = False,
    ) -> None:
        # The SDK's own rule, so that every process of a trace decides alike.
        self._bound = round(ratio * (1 << _RATIO_BITS))
        self._sink = sink
        self.now = monotonic
        self._wall_ns = wall_ns
        self._is_parent_based = is_parent_based
        self.is_latest_semconv = is_latest_semconv
        # Ids want to be unique, not secret; seeded by the operating system.
        self._bits = random.Random().getrandbits  # noqa: S311

    def sample(self, traceparent: bytes | None) -> tuple[TraceContext, TraceContext | None] | None:
        """The context of a request's span and its parent; None if it is not traced.

        Args:
            traceparent: The request's header, if it has one. A malformed header is ignored.
        """
        if traceparent is None:
            parent = None
        elif self._is_parent_based and is_plainly_unsampled(traceparent):
            return None
        else:
            parent = read_traceparent(traceparent)
        if parent is not None and self._is_parent_based:
            return (self.child(parent), parent) if parent.is_sampled else None
        trace_id = parent.trace_id if parent is not None else self._bits(128) or 1
        if trace_id & ((1 << _RATIO_BITS) - 1) >= self._bound:
            return None
        return TraceContext(trace_id, self._bits(64) or 1), parent

    def root(self) -> TraceContext:
        """The first span of a new trace that is always sampled."""
        return TraceContext(self._bits(128) or 1, self._bits(64) or 1)

    def child(self, parent: TraceContext) -> TraceContext:
        """Another span of the same trace."""
        return TraceContext(parent.trace_id, self._bits(64) or 1)

    def clock(self) -> Callable[[float], int]:
        """A function from monotonic seconds to Unix nanoseconds, by the clocks' present offset."""
        offset = self._wall_ns() - int(self.now() * _NANO)
        return lambda at: int(at * _NANO) + offset

    def record(self, span: Span) -> None:
        """Hand on a span that is over."""
        self._sink(span)


def unix_ns(seconds: float) -> int:
    """Unix seconds as nanoseconds."""
    return int(seconds * _NANO)
