"""Trace settings from OpenTelemetry's standard variables, read once when a process starts.

The SDK reads the other variables by itself (headers, timeout, certificates, resource attributes,
the batch's size); docs/traces.md lists all of them.
"""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from penumbra.monitoring.tracing.semconv import is_latest_wanted

DEFAULT_RATIO = 0.01
"""Default share of the requests without a sampled parent that are traced."""

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_NO_CAPTURE = ("", "false", "no_content")
_FIXED_RATIOS = {"always_on": 1.0, "always_off": 0.0}
_RATIO = "traceidratio"
_PARENT_BASED = "parentbased_"
_SAMPLERS = (*_FIXED_RATIOS, _RATIO)
_DEFAULT_QUEUE = 2048


class TracingMisconfigured(ValueError):
    """A variable has a value that cannot be used; the message says what would be right."""

    code = "tracing_misconfigured"


class TraceSettings(BaseModel):
    """Whether and how a process traces."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    endpoint: str = Field(min_length=1)
    """URL of the collector, OTLP over gRPC; the SDK takes it from the same variable."""
    ratio: float = Field(ge=0.0, le=1.0)
    """Share of the traces that begin here which are sampled."""
    is_parent_based: bool = True
    """Whether a request that comes with a trace context is sampled as that says."""
    is_latest_semconv: bool = False
    """Whether names that the GenAI conventions have given up are left out."""
    queue_spans: int = Field(default=_DEFAULT_QUEUE, ge=1)
    """Most spans that may wait for the collector; further ones are dropped and counted."""
    is_capture_wanted: bool = False
    """Whether the variable for it asks for prompts and answers. There is no such capture."""


def trace_settings(environment: Mapping[str, str]) -> TraceSettings | None:
    """Read the trace settings from the environment; None if it asks for no traces.

    Raises:
        TracingMisconfigured: A variable has a value that cannot be used.
    """
    endpoint = next((environment[name] for name in ENDPOINTS if environment.get(name)), None)
    is_off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if endpoint is None or is_off or _exporter(environment) == "none":
        return None
    for name in _PROTOCOLS:
        if environment.get(name, "grpc") not in ("grpc", ""):
            raise TracingMisconfigured(
                f"{name} is {environment[name]!r}, wanted grpc (the collector's port 4317)"
            )
    ratio, is_parent_based = _sampler(environment)
    return TraceSettings(
        endpoint=endpoint,
        ratio=ratio,
        is_parent_based=is_parent_based,
        is_latest_semconv=is_latest_wanted(environment.get("OTEL_SEMCONV_STABILITY_OPT_IN", "")),
        queue_spans=_queue(environment),
        is_capture_wanted=environment.get(CAPTURE, "").strip().lower() not in _NO_CAPTURE,
    )


def _exporter(environment: Mapping[str, str]) -> str:
    name = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name not in ("otlp", "none"):
        raise TracingMisconfigured(f"OTEL_TRACES_EXPORTER is {name!r}, wanted otlp or none")
    return name


def _sampler(environment: Mapping[str, str]) -> tuple[float, bool]:
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip()
    if not name:
        return _ratio(environment, DEFAULT_RATIO), True
    kind = name.removeprefix(_PARENT_BASED)
    if kind not in _SAMPLERS:
        wanted = ", ".join((*_SAMPLERS, *(_PARENT_BASED + sampler for sampler in _SAMPLERS)))
        raise TracingMisconfigured(f"OTEL_TRACES_SAMPLER is {name!r}, wanted one of: {wanted}")
    ratio = _FIXED_RATIOS[kind] if kind in _FIXED_RATIOS else _ratio(environment, 1.0)
    return ratio, kind != name


def _ratio(environment: Mapping[str, str], default: float) -> float:
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    try:
        ratio = float(text) if text else default
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        raise TracingMisconfigured(
            f"OTEL_TRACES_SAMPLER_ARG is {text!r}, wanted a share between 0 and 1, e.g. 0.01"
        )
    return ratio


def _queue(environment: Mapping[str, str]) -> int:
    name = "OTEL_BSP_MAX_QUEUE_SIZE"
    text = environment.get(name, "").strip()
    if not text:
        return _DEFAULT_QUEUE
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise TracingMisconfigured(f"{name} is {text!r}, wanted a number of spans, 1 or more")
    return int(text)
