import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from penumbra.monitoring.tracing.context import TraceContext
from penumbra.monitoring.tracing.span import Span
from penumbra.monitoring.tracing.tracer import Tracer


def tracer(ratio: float, **more: bool) -> Tracer:
    spans: list[Span] = []
    return Tracer(ratio, spans.append, lambda: 5.0, lambda: 1_800_000_000_000_000_000, **more)


def header(trace_id: int, *, is_sampled: bool) -> bytes:
    return TraceContext(trace_id, 7, is_sampled).header.encode()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("is_sampled", [True, False])
def test_a_parents_decision_is_kept(ratio: float, is_sampled: bool) -> None:
    found = tracer(ratio).sample(header(9, is_sampled=is_sampled))
    if not is_sampled:
        assert found is None
        return
    assert found is not None
    context, parent = found
    assert parent == TraceContext(9, 7)
    assert context.trace_id == 9
    assert context.span_id not in (0, 7)


def test_without_parents_the_ratio_decides_of_each_trace() -> None:
    made = tracer(0.25)
    sampled = sum(made.sample(None) is not None for _ in range(4000))
    assert 800 < sampled < 1200  # +- 7 standard deviations


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 1.0])
def test_the_ratio_decides_as_the_sdk_does(ratio: float) -> None:
    ours = tracer(ratio, is_parent_based=False)
    theirs = TraceIdRatioBased(ratio)
    step = (1 << 64) // 997
    for low in range(0, 1 << 64, step):
        trace_id = (1 << 100) | low
        wanted = theirs.should_sample(None, trace_id, "x").decision.is_sampled()
        assert (ours.sample(header(trace_id, is_sampled=False)) is not None) == wanted


def test_a_malformed_parent_begins_a_trace_of_its_own() -> None:
    found = tracer(1.0).sample(b"nonsense")
    assert found is not None
    assert found[1] is None


def test_times_are_those_of_the_wall() -> None:
    ns = tracer(1.0).clock()
    assert ns(5.0) == 1_800_000_000_000_000_000
    assert ns(4.5) == 1_799_999_999_500_000_000
