import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penumbra.monitoring.tracing.context import (
    TraceContext,
    is_plainly_unsampled,
    read_traceparent,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@given(
    st.integers(min_value=1, max_value=2**128 - 1),
    st.integers(min_value=1, max_value=2**64 - 1),
    st.booleans(),
)
def test_what_is_written_is_read_back(trace_id: int, span_id: int, is_sampled: bool) -> None:
    context = TraceContext(trace_id, span_id, is_sampled)
    assert read_traceparent(context.header.encode()) == context


@pytest.mark.parametrize(
    ("value", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f" 00-{TRACE}-{SPAN}-01 ", True),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", True),
    ],
)
def test_a_context_is_read(value: str, is_sampled: bool) -> None:
    found = read_traceparent(value.encode())
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), is_sampled)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01x",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_malformed_is_no_context(value: str) -> None:
    assert read_traceparent(value.encode()) is None


@given(
    st.integers(min_value=0, max_value=2**128 - 1),
    st.integers(min_value=0, max_value=2**64 - 1),
    st.integers(min_value=0, max_value=255),
)
@example(0, 1, 0)
@example(1, 0, 0)
def test_plainly_unsampled_headers_are_those_read_as_unsampled(
    trace_id: int, span_id: int, flags: int
) -> None:
    header = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}".encode()
    found = read_traceparent(header)
    assert is_plainly_unsampled(header) == (found is not None and not found.is_sampled)


@given(st.binary(max_size=80))
def test_reading_any_bytes_never_raises(value: bytes) -> None:
    read_traceparent(value)
