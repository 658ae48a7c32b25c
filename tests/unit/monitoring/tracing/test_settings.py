import pytest

from penumbra.monitoring.tracing.settings import (
    DEFAULT_RATIO,
    TracingMisconfigured,
    trace_settings,
)

ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_TRACES_SAMPLER": "nonsense"},
        {**ON, "OTEL_SDK_DISABLED": "True"},
        {**ON, "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=str,
)
def test_without_an_endpoint_or_switched_off_there_is_none(environment: dict[str, str]) -> None:
    assert trace_settings(environment) is None


def test_one_in_a_hundred_is_sampled_unless_said() -> None:
    settings = trace_settings(ON)
    assert settings is not None
    assert (settings.ratio, settings.is_parent_based) == (DEFAULT_RATIO, True) == (0.01, True)
    assert not settings.is_latest_semconv
    assert not settings.is_capture_wanted


def test_the_endpoint_of_traces_alone_switches_them_on() -> None:
    assert trace_settings({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h:4317"}) is not None


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("always_on", "0.5", (1.0, False)),
        ("always_off", "", (0.0, False)),
        ("traceidratio", "0.25", (0.25, False)),
        ("traceidratio", "", (1.0, False)),
        ("parentbased_always_on", "", (1.0, True)),
        ("parentbased_always_off", "", (0.0, True)),
        ("parentbased_traceidratio", "0.25", (0.25, True)),
        ("", "0.25", (0.25, True)),
    ],
)
def test_the_sdks_samplers_are_known(
    sampler: str, argument: str, expected: tuple[float, bool]
) -> None:
    told = {**ON, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    settings = trace_settings(told)
    assert settings is not None
    assert (settings.ratio, settings.is_parent_based) == expected


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "between 0 and 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "between 0 and 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "all", "between 0 and 1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "grpc"),
        ("OTEL_TRACES_EXPORTER", "console", "otlp or none"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "1 or more"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, value: str, wanted: str) -> None:
    with pytest.raises(TracingMisconfigured) as caught:
        trace_settings({**ON, name: value})
    message = str(caught.value)
    assert name in message
    assert repr(value) in message
    assert wanted in message
