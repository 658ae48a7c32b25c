"""Exports spans to a collector by OpenTelemetry's batching processor, OTLP over gRPC.

Both are imported when tracing is on, and not before. Spans wait in a bounded queue for a thread of
the SDK's; a collector that is slow, hangs or is away costs spans, never a request.

Reading order: tracing, Export.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

from penumbra.monitoring.tracing.context import TraceContext
from penumbra.monitoring.tracing.settings import CAPTURE, TracingMisconfigured, trace_settings
from penumbra.monitoring.tracing.span import Span, SpanKind
from penumbra.monitoring.tracing.tracer import Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger(__name__)

SCOPE = "penumbra"
CLOSE_SECONDS = 2.0
"""Time that the end of a process waits for the collector to take the last spans."""
_QUIET_SECONDS = 60.0
"""Least time between two log lines about lost spans."""


@contextlib.contextmanager
def tracing(environment: Mapping[str, str], service: str, instance: str) -> Iterator[Tracer | None]:
    """Give a process its tracer for as long as it runs; None if the environment asks for no traces.

    At the end the waiting spans are sent; those that the collector does not take in time are lost.

    Args:
        environment: OTEL_*; see `trace_settings`.
        service: `service.name`, unless the environment says another one.
        instance: `service.instance.id`, likewise.

    Raises:
        TracingMisconfigured: A variable has a value that cannot be used, or something is missing
            that has to be installed.
    """
    settings = trace_settings(environment)
    if settings is None:
        yield None
        return
    try:
        export = Export(settings.queue_spans, _identity(service, instance))
    except ModuleNotFoundError as error:
        raise TracingMisconfigured(
            f"an endpoint for traces is set, but {error.name} is not installed:"
            " pip install '.[tracing]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from error
    except ValueError as error:
        raise TracingMisconfigured(
            f"the exporter of traces refuses its variables: {error}"
        ) from error
    if settings.is_capture_wanted:
        log.warning("content_not_captured", extra={"variable": CAPTURE})
    log.info("tracing_on", extra={"ratio": settings.ratio})
    try:
        yield Tracer(
            settings.ratio,
            export.put,
            time.monotonic,
            time.time_ns,
            is_parent_based=settings.is_parent_based,
            is_latest_semconv=settings.is_latest_semconv,
        )
    finally:
        export.close(CLOSE_SECONDS)


class _Processor(Protocol):
    def on_end(self, span: "ReadableSpan", /) -> None: ...

    def shutdown(self) -> None: ...


class Export:
    """Queue, thread and exporter of one process's spans.

    Args:
        queue_spans: How many may wait.
        identity: Resource attributes that the environment may override.

    Raises:
        ModuleNotFoundError: The SDK or the exporter is not installed.
        ValueError: A variable that the SDK reads has a value that it cannot use.
    """

    def __init__(self, queue_spans: int, identity: Mapping[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        for chatty in ("opentelemetry", "grpc"):
            # They log each try, and quote what they cannot send; `spans_lost` says it once.
            logging.getLogger(chatty).setLevel(logging.CRITICAL + 1)
        self._conversion = _Conversion(_resource(identity))
        self._limit = queue_spans
        self._put = 0
        self._taken = 0
        """Spans handed to the exporter; only the SDK's thread writes it, as it does `_failed`."""
        self._failed = 0
        self._dropped = 0
        self._logged_at = -_QUIET_SECONDS
        self._processor: _Processor = BatchSpanProcessor(
            _count_exports(OTLPSpanExporter(), self._exported), max_queue_size=queue_spans
        )

    def put(self, span: Span) -> None:
        """Queue a span; never waits, never raises."""
        if self._put - self._taken >= self._limit:
            self._dropped += 1
            return
        try:
            self._processor.on_end(self._conversion.readable(span))
        except Exception as error:  # noqa: BLE001 - the caller has a request to finish
            self._dropped += 1
            self._log_losses(type(error).__name__)
        else:
            self._put += 1

    def _exported(self, spans: int, *, is_ok: bool) -> None:
        self._taken += spans
        if not is_ok:
            self._failed += spans
        if self._failed or self._dropped:
            self._log_losses("the collector did not take them")

    def _log_losses(self, cause: str) -> None:
        now = time.monotonic()
        if now - self._logged_at < _QUIET_SECONDS:
            return
        self._logged_at = now
        lost = {"failed": self._failed, "dropped": self._dropped}
        self._failed = self._dropped = 0
        log.warning("spans_lost", extra={**lost, "cause": cause})

    def close(self, seconds: float) -> None:
        """Export the waiting spans within a time limit in seconds, and stop."""
        # The SDK's own end waits for half a minute; this thread ends with the process.
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        ending.join(seconds)
        left = self._put - self._taken + self._failed + self._dropped
        if ending.is_alive() or left:
            log.warning("spans_lost", extra={"failed": left, "dropped": 0, "cause": "the end"})


class _Conversion:
    """Converts spans to those of the SDK.

    Args:
        resource: Resource that describes the process.
    """

    def __init__(self, resource: "Resource") -> None:
        from opentelemetry import trace
        from opentelemetry.sdk import trace as sdk
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace.status import Status, StatusCode

        self._api, self._sdk = trace, sdk
        self._resource = resource
        self._scope = InstrumentationScope(SCOPE, _version())
        self._kinds = {
            SpanKind.SERVER: trace.SpanKind.SERVER,
            SpanKind.CLIENT: trace.SpanKind.CLIENT,
            SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
        }
        # OK is for people to set; a span without an error is left unset.
        self._unset, self._error = Status(StatusCode.UNSET), Status(StatusCode.ERROR)

    def readable(self, span: Span) -> "ReadableSpan":
        """One span as the SDK's exporters read it."""
        return self._sdk.ReadableSpan(
            name=span.name,
            context=self._context(span.context),
            parent=None if span.parent is None else self._context(span.parent, is_remote=True),
            resource=self._resource,
            attributes=span.attributes,
            events=[
                self._sdk.Event(event.name, event.attributes, event.at_ns)
                for event in span.happenings
            ],
            links=[self._api.Link(self._context(link, is_remote=True)) for link in span.links],
            kind=self._kinds[span.kind],
            status=self._error if span.is_error else self._unset,
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )

    def _context(self, context: TraceContext, *, is_remote: bool = False) -> Any:
        flags = self._api.TraceFlags(int(context.is_sampled))
        return self._api.SpanContext(context.trace_id, context.span_id, is_remote, flags)


class _Exported(Protocol):
    def __call__(self, spans: int, *, is_ok: bool) -> None: ...


def _count_exports(exporter: Any, exported: _Exported) -> Any:
    """An exporter that reports the result of each batch to `exported`."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class CountingExporter(SpanExporter):
        def export(self, spans: Sequence["ReadableSpan"]) -> SpanExportResult:
            result: SpanExportResult = SpanExportResult.FAILURE
            try:
                result = exporter.export(spans)
            finally:
                exported(len(spans), is_ok=result is SpanExportResult.SUCCESS)
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return bool(exporter.force_flush(timeout_millis))

    return CountingExporter()


def _identity(service: str, instance: str) -> dict[str, str]:
    return {
        "service.name": service,
        "service.namespace": SCOPE,
        "service.instance.id": instance,
        "service.version": _version(),
    }


def _resource(identity: Mapping[str, str]) -> "Resource":
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    said = OTELResourceDetector().detect().attributes
    return Resource.create({name: text for name, text in identity.items() if name not in said})


def _version() -> str:
    try:
        return metadata.version("penumbra-gateway")
    except metadata.PackageNotFoundError:
        return "unknown"
