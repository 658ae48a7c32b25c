"""Rights of links: the observations that gateways, and that comparators, may report. Pure.

A gateway sees attempts: it counts failures and late answers, and trips by failures. A comparator
compares: it reports pairs, its tests, the builds that it read, and trips by what it found there.
Both tell what was shed. So a stolen gateway's token invents no pairs, and a comparator's no
failures; judgements of users (`feedback`) are counted by the control process itself.
"""

from collections.abc import Iterator

from penumbra.monitoring.observations import Report, RunReport, Signal

GATEWAY_COUNTS = frozenset({Signal.FAILURE, Signal.TTFT, Signal.TPOT})
"""Signals that a gateway counts."""
_COMPARATORS_ALONE = ("pairs", "self_tests", "scorer_tests", "fingerprints", "builds")


def foreign_part(report: Report, *, is_comparator: bool) -> str | None:
    """Tell the first part of a report that its sender may not report; None if it may report all.

    Args:
        report: What came over the link.
        is_comparator: Whether it came over a comparator's link; else it was a gateway's.
    """
    own = "comparator" if is_comparator else "gateway"
    for index, run in enumerate(report.runs):
        for part in _comparator_parts(run) if is_comparator else _gateway_parts(run):
            return f"runs[{index}].{part}, which a {own} may not report"
    return None


def _gateway_parts(run: RunReport) -> Iterator[str]:
    for name in _COMPARATORS_ALONE:
        if getattr(run, name):
            yield f"{name}: found {len(getattr(run, name))}"
    for counts in run.counts:
        if counts.signal not in GATEWAY_COUNTS:
            yield f"counts: found {counts.signal.value}"
    for trip in run.trips:
        if trip.signal != Signal.FAILURE:
            yield f"trips: found {trip.signal[:80]!r}"


def _comparator_parts(run: RunReport) -> Iterator[str]:
    for counts in run.counts:
        yield f"counts: found {counts.signal.value}"
    for trip in run.trips:
        if trip.signal == Signal.FAILURE:
            yield f"trips: found {trip.signal!r}"
