"""An OTLP collector in the test's own process: keeps every span, or refuses, or hangs."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Event:
    name: str
    at_ns: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Received:
    """One span as it arrived; ids in hex, empty where there is none."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    events: tuple[Event, ...]
    links: tuple[tuple[str, str], ...]
    is_error: bool
    resource: dict[str, Any]

    @property
    def event_names(self) -> list[str]:
        return [event.name for event in self.events]


class Collector(TraceServiceServicer):
    """Collector that keeps its requests; `is_hanging` and `is_refusing` make it fail."""

    def __init__(self) -> None:
        self.port = 0
        self.spans: list[Received] = []
        self.raw: list[bytes] = []
        """Every request, serialised."""
        self.metadata: list[dict[str, str]] = []
        self.calls = 0
        self.is_refusing = False
        self.is_hanging = False
        self.released = threading.Event()
        self._changed = threading.Condition()

    @property
    def environment(self) -> dict[str, str]:
        """Has a process send every trace here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_TRACES_SAMPLER": "parentbased_always_on",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    def Export(  # noqa: N802 - the name in the protocol
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        with self._changed:
            self.calls += 1
            self._changed.notify_all()
        if self.is_hanging:
            self.released.wait()
        if self.is_refusing:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        with self._changed:
            self.raw.append(request.SerializeToString())
            self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
            self.spans += _received(request)
            self._changed.notify_all()
        return ExportTraceServiceResponse()

    def wait_for(
        self, is_there: Callable[["Collector"], bool], what: str = "the spans"
    ) -> list[Received]:
        """Wait until the spans are as wanted; returns all."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: is_there(self), WAIT_SECONDS)
        names = sorted(span.name for span in self.spans)
        assert arrived, f"waited {WAIT_SECONDS} s for {what}, found {names}"
        return list(self.spans)

    def wait_for_names(self, *names: str) -> list[Received]:
        """All spans, once there is one of each name."""
        return self.wait_for(
            lambda told: set(names) <= {span.name for span in told.spans}, ", ".join(names)
        )

    def one(self, name: str) -> Received:
        """The one span of a name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def clear(self) -> None:
        with self._changed:
            self.spans, self.raw, self.metadata = [], [], []


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector
    finally:
        collector.released.set()
        server.stop(None).wait()


def _received(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _span(span, resource)


def _span(span: Span, resource: dict[str, Any]) -> Received:
    return Received(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=tuple(
            Event(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in span.events
        ),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        resource=resource,
    )


def _attributes(items: Any) -> dict[str, Any]:
    return {item.key: _value(item.value) for item in items if isinstance(item, KeyValue)}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
