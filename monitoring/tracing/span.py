"""What a span is, once it is over. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penumbra.monitoring.tracing.context import TraceContext


class SpanKind(StrEnum):
    """OpenTelemetry's, as far as they are used."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """An event within a span."""

    name: str
    at_ns: int
    """Unix nanoseconds."""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One span that is over; Unix nanoseconds."""

    name: str
    kind: SpanKind
    context: TraceContext
    parent: TraceContext | None
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    happenings: tuple[SpanEvent, ...] = ()
    links: tuple[TraceContext, ...] = ()
    is_error: bool = False
