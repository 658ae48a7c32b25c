"""Log of faults of the comparator's own: kind and place only."""

import logging
import traceback

from penumbra.monitoring.logs import trace_field

log = logging.getLogger(__name__)


def log_fault(error: Exception, trace: str) -> None:
    """Log a fault that ended a comparison.

    Args:
        error: The fault.
        trace: The `traceparent` of the request, or empty.
    """
    # The place only: the text of an error may quote the request.
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-4:]]
    log.error(
        "comparison_failed",
        extra={"error": type(error).__name__, "where": where, **trace_field(trace)},
    )
