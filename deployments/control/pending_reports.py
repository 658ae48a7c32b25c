"""Reports that wait for the next commit, how each wait ends, and the numbers of stored ones."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from penumbra.deployments.errors import ReportRefused
from penumbra.deployments.evidence.report_checks import report_problem
from penumbra.monitoring.observations import Report


@dataclass(frozen=True, slots=True, eq=False)
class PendingReport:
    """A report that is not durable yet."""

    report: Report
    done: "asyncio.Future[None]"


class LastNumbers:
    """Largest number of a report of each process start that is known to be stored."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], int] = {}

    def note(self, reports: Iterable[Report]) -> None:
        """Take note of reports that were stored."""
        for report in reports:
            sender = report.source, report.process_start_id
            self._last[sender] = max(report.seq, self._last.get(sender, report.seq))

    def doubtful(self, reports: Iterable[Report]) -> list[Report]:
        """Return the reports that may be stored already: all but those with the next numbers."""
        return [
            report
            for report in reports
            if report.seq <= self._last.get((report.source, report.process_start_id), report.seq)
        ]


def require_sound(report: Report) -> None:
    """Check that all figures and names of a report are in range.

    Raises:
        ReportRefused: One is not; names it.
    """
    problem = report_problem(report)
    if problem is not None:
        raise ReportRefused(problem, param=problem.partition(":")[0])


def refuse(batch: Iterable[PendingReport], report: Report, error: Exception) -> None:
    """End the waits for one report, because it cannot be counted."""
    refusal = ReportRefused(f"the report cannot be counted: {error}", param="runs")
    settle([pending for pending in batch if pending.report == report], refusal)


def settle(batch: Iterable[PendingReport], error: BaseException | None = None) -> None:
    """End the waits that have not ended yet, with an error if there is one."""
    for pending in batch:
        if pending.done.done():
            continue
        if error is None:
            pending.done.set_result(None)
            continue
        pending.done.set_exception(_as_failure(error))
        pending.done.exception()  # retrieved, in case no task awaits it any more


def _as_failure(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError("the commit was cancelled")
