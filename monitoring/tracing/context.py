"""W3C trace context: reads and writes the header `traceparent`. Pure.

https://www.w3.org/TR/trace-context/, version 00.
"""

import re
from dataclasses import dataclass

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"

_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
# The usual header of a request that is not sampled, matched without reading a number. The
# lookaheads refuse an id of zeros, which is no id.
_is_plainly_unsampled = re.compile(
    rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]"
).fullmatch
_INVALID_VERSION = 0xFF
_IS_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Ids of one span: 128 and 64 bits, neither is 0."""

    trace_id: int
    span_id: int
    is_sampled: bool = True

    @property
    def trace_hex(self) -> str:
        """The trace's id as it is written everywhere: 32 hex digits."""
        return f"{self.trace_id:032x}"

    @property
    def header(self) -> str:
        """The value of `traceparent` that makes what follows a child of this span."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


def is_plainly_unsampled(traceparent: bytes) -> bool:
    """Whether a header is well-formed and says that its trace is not sampled.

    If False, only `read_traceparent` can tell.
    """
    return _is_plainly_unsampled(traceparent) is not None


def read_traceparent(value: bytes | None) -> TraceContext | None:
    """The span that a request came from; None if the header is missing or malformed."""
    if value is None:
        return None
    found = _FORM.fullmatch(value.strip(b" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags = (int(part, 16) for part in found.group(1, 2, 3, 4))
    # Versions to come may say more behind the flags; this one does not.
    if version == _INVALID_VERSION or (version == 0 and found[5]):
        return None
    if not trace_id or not span_id:
        return None
    return TraceContext(trace_id, span_id, bool(flags & _IS_SAMPLED))
