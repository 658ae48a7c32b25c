"""Checks of a report's numbers and names: whatever passes can be folded, stored and shown. Pure.

A process of another version, or one with a fault, may send anything that its message's types allow.
Reading order: report_problem.
"""

from collections.abc import Iterable, Iterator, Mapping

from penumbra.deployments.rollouts.limits import shown
from penumbra.monitoring.observations import Pair, Report, RunReport

MOST_SEQ = 2**63 - 1
"""Largest number of a report: what databases hold."""
MOST_HASH = 2**64 - 1
MOST_COUNT = 1_000_000_000
"""Most observations, tokens or sheds in one figure of one report."""
MOST_MOMENT = 32_503_680_000.0
"""Unix seconds of the year 3000."""
MOST_FIGURE = 1e308
MOST_TEXT = 10_000
"""Most characters of a detail."""
MOST_NAME = 256
MOST_ID = 64


def report_problem(report: Report) -> str | None:
    """Describe the first field that is out of range, `path: found X, wanted Y`; None: none is."""
    return next(_problems(report), None)


def _problems(report: Report) -> Iterator[str]:
    if not 0 <= report.seq <= MOST_SEQ:
        yield f"seq: found {shown(report.seq)}, wanted 0 to {MOST_SEQ}"
    yield from _text_problems("source", report.source, MOST_NAME)
    yield from _text_problems("incarnation", report.process_start_id, MOST_ID)
    for index, run_report in enumerate(report.runs):
        yield from _run_problems(f"runs[{index}]", run_report)


def _run_problems(path: str, report: RunReport) -> Iterator[str]:
    yield from _text_problems(f"{path}.run.id", report.run.id, MOST_ID)
    for index, pair in enumerate(report.pairs):
        if not _is_sound(pair):
            yield from _pair_problems(f"{path}.pairs[{index}]", pair)
    for index, counts in enumerate(report.counts):
        figures = {"zeros": counts.zeros, "ones": counts.ones}
        yield from _range_problems(f"{path}.counts[{index}]", figures, 0, MOST_COUNT)
    for index, shed in enumerate(report.sheds):
        yield from _range_problems(f"{path}.sheds[{index}]", {"count": shed.count}, 0, MOST_COUNT)
    for name in ("trips", "self_tests", "scorer_tests"):
        yield from _event_problems(f"{path}.{name}", getattr(report, name))


def _event_problems(path: str, found: Iterable[object]) -> Iterator[str]:
    for index, each in enumerate(found):
        at, detail = getattr(each, "at", 0.0), getattr(each, "detail", "")
        yield from _range_problems(f"{path}[{index}]", {"at": at}, 0.0, MOST_MOMENT)
        if len(detail) > MOST_TEXT:
            yield f"{path}[{index}].detail: found {len(detail)} characters, wanted {MOST_TEXT}"


def _is_sound(pair: Pair) -> bool:
    """Whether no figure of a pair is out of range; quick, because it is asked of every pair."""
    return (
        -MOST_HASH <= pair.cluster <= MOST_HASH
        and -MOST_HASH <= pair.session <= MOST_HASH
        and 0 <= pair.tokens <= MOST_COUNT
        and 0.0 <= pair.at <= MOST_MOMENT
        and -MOST_FIGURE <= pair.engine_seconds <= MOST_FIGURE
        and (pair.kl is None or -MOST_FIGURE <= pair.kl <= MOST_FIGURE)
        and (pair.agreement is None or -MOST_FIGURE <= pair.agreement <= MOST_FIGURE)
        and (pair.divergence is None or -MOST_COUNT <= pair.divergence <= MOST_COUNT)
    )


def _pair_problems(path: str, pair: Pair) -> Iterator[str]:
    hashes = {"cluster": pair.cluster, "session": pair.session}
    yield from _range_problems(path, hashes, -MOST_HASH, MOST_HASH)
    yield from _range_problems(path, {"tokens": pair.tokens}, 0, MOST_COUNT)
    yield from _range_problems(path, {"at": pair.at}, 0.0, MOST_MOMENT)
    figures = {"engine_seconds": pair.engine_seconds, "kl": pair.kl, "agreement": pair.agreement}
    yield from _range_problems(path, figures, -MOST_FIGURE, MOST_FIGURE)
    yield from _range_problems(path, {"divergence": pair.divergence}, -MOST_COUNT, MOST_COUNT)


def _range_problems(
    path: str, figures: Mapping[str, float | None], low: float, high: float
) -> Iterator[str]:
    for name, value in figures.items():
        # NaN fails the comparison too.
        if value is not None and not low <= value <= high:
            yield f"{path}.{name}: found {shown(value)}, wanted {low:g} to {high:g}"


def _text_problems(path: str, text: str, most: int) -> Iterator[str]:
    if not text or len(text) > most or "\0" in text:
        yield f"{path}: found {text[:80]!r}, wanted 1 to {most} characters without NUL"
