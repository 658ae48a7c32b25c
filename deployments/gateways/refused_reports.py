"""Count and log of reports that cannot be counted as evidence.

A process with a fault may send one a second, so its log lines are at most one a minute and process.
"""

import logging
from collections.abc import Callable

from penumbra.monitoring.log_limit import LogLimit

log = logging.getLogger(__name__)

_MOST_SOURCES = 1000
_DETAIL_CHARS = 300


class RefusedReports:
    """Reports that were refused since this process began.

    Args:
        now: Monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.count = 0
        """Number of refused reports, of all processes."""
        self._log_limit = LogLimit(now, _MOST_SOURCES)

    def note(self, gateway: str, seq: int, detail: str) -> None:
        """Count a refusal, and log it unless one of the same process was logged in this minute.

        Args:
            gateway: Name of the gateway or comparator on whose link it came.
            seq: The report's number.
            detail: The field at fault, what was found there, and what was wanted.
        """
        self.count += 1
        unlogged = self._log_limit.take(gateway)
        if unlogged is None:
            return
        log.error(
            "report_refused",
            extra={
                "gateway": gateway,
                "seq": seq if abs(seq) < 2**64 else None,
                "detail": detail[:_DETAIL_CHARS],
                "refused_before": unlogged,
            },
        )
