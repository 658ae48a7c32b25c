"""Record of a finished span. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from penumbra.monitoring.tracing.context import TraceContext


class SpanKind(StrEnum):
    """Kinds of OpenTelemetry's spans that are used here."""

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
    """One finished span; times are Unix nanoseconds."""

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
