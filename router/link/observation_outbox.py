"""Outbox of one process's observations: gathers them into reports that each count exactly once.

At most one report is on its way. Observations made meanwhile become the next one: an idle link
sends at once, a busy one in batches. A report keeps its number until it is acknowledged. It is
known to the control process by (source, incarnation, seq), so one that was sent twice counts once.

The outbox never waits and never grows without bound: past the limit the newest pair is dropped,
counted, and reported as shed, so that the judge of the run knows that it is missing.

Reading order: ObservationOutbox.pair, ObservationOutbox.next_report, ObservationOutbox.acknowledge.
"""

import asyncio
import math
import sys
from collections import deque
from collections.abc import Mapping
from itertools import islice

import msgspec

from penumbra.monitoring.observations import (
    Counts,
    Pair,
    Report,
    Run,
    RunReport,
    ScorerTest,
    SelfTest,
    Shed,
    Signal,
    Trip,
)
from penumbra.router.bounds import DETAIL_CHARS, REPORT_ROWS

LIMIT = 20_000
"""Pairs that may wait."""
RARE_LIMIT = 100
"""Trips, and self-tests, of each run that may wait, however many pairs there are."""
UNREPORTED = "unreported"
"""Reason of a shed whose pair was compared, but too many pairs waited for the control process."""

_LARGEST = sys.float_info.max


class _Waiting:
    """The waiting observations of one run."""

    __slots__ = (
        "builds", "counts", "fingerprints", "pairs", "scorer_tests", "self_tests", "sheds",
        "trips",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pairs: deque[Pair] = deque()
        self.counts: dict[tuple[str, Signal], list[int]] = {}
        self.trips: list[Trip] = []
        self.self_tests: deque[SelfTest] = deque(maxlen=RARE_LIMIT)
        self.scorer_tests: deque[ScorerTest] = deque(maxlen=RARE_LIMIT)
        self.sheds: dict[tuple[str, str, str], int] = {}
        self.fingerprints: dict[str, str] = {}
        self.builds: dict[str, dict[str, str]] = {}

    def take(self, run: Run, most_pairs: int) -> RunReport:
        """Take everything out as a report; pairs over `most_pairs` stay.

        All else is bounded by itself: kinds of counts and sheds, and `RARE_LIMIT`.
        """
        pairs = tuple(islice(self.pairs, most_pairs))
        for _ in pairs:
            self.pairs.popleft()
        report = RunReport(
            run=run,
            pairs=pairs,
            counts=tuple(
                Counts(slice_name, signal, zeros, ones)
                for (slice_name, signal), (zeros, ones) in self.counts.items()
            ),
            trips=tuple(self.trips),
            self_tests=tuple(self.self_tests),
            sheds=tuple(Shed(*key[:2], count, key[2]) for key, count in self.sheds.items()),
            fingerprints=self.fingerprints,
            builds=self.builds,
            scorer_tests=tuple(self.scorer_tests),
        )
        self.counts, self.trips = {}, []
        self.self_tests.clear()
        self.scorer_tests.clear()
        self.sheds, self.fingerprints, self.builds = {}, {}, {}
        return report


class ObservationOutbox:
    """Observations on their way from one process to the control process.

    Args:
        source: Id of the process.
        process_start_id: Random id of this process start.
        limit: Pairs that may wait.
    """

    def __init__(self, source: str, process_start_id: str, limit: int = LIMIT) -> None:
        self.source = source
        self.process_start_id = process_start_id
        self.dropped = 0
        """Observations that were dropped because too many were waiting."""
        self.has_news = asyncio.Event()
        """Set when `next_report` may have a report to give; never while one is on its way. The
        sender clears it before it waits."""
        self._limit = limit
        self._waiting: dict[Run, _Waiting] = {}
        self._waiting_count = 0
        self._unacknowledged: Report | None = None
        self._is_sent = False
        self._seq = 0

    # Taking observations

    def pair(self, run: Run, pair: Pair) -> None:
        """Add a compared request. Figures that are not finite are left out; `not_finite` tells."""
        if self._waiting_count >= self._limit:
            self.dropped += 1
            self.shed(run, pair.slice, UNREPORTED)
            return
        self._waiting_count += 1
        self._waiting_of(run).pairs.append(_finite_pair(pair))
        self._note_news()

    def count(self, run: Run, slice_name: str, signal: Signal, *, is_one: bool) -> None:
        """Add one observation of a {0, 1} signal."""
        counts = self._waiting_of(run).counts.setdefault((slice_name, signal), [0, 0])
        counts[is_one] += 1
        self._note_news()

    def trip(self, run: Run, trip: Trip) -> None:
        """Report that this process took the candidate out of service."""
        trips = self._waiting_of(run).trips
        if len(trips) < RARE_LIMIT:
            trips.append(msgspec.structs.replace(trip, detail=_short(trip.detail)))
            self._note_news()
        else:
            self.dropped += 1

    def self_test(self, run: Run, test: SelfTest) -> None:
        """Add a self-test of the baseline. An infinite gap is reported as the largest float."""
        gap = test.largest_gap if math.isfinite(test.largest_gap) else _LARGEST
        test = msgspec.structs.replace(test, largest_gap=gap, detail=_short(test.detail))
        tests = self._waiting_of(run).self_tests
        self.dropped += len(tests) == RARE_LIMIT
        tests.append(test)
        self._note_news()

    def scorer_test(self, run: Run, test: ScorerTest) -> None:
        """Add a test of the candidate's scorer."""
        test = msgspec.structs.replace(test, detail=_short(test.detail))
        tests = self._waiting_of(run).scorer_tests
        self.dropped += len(tests) == RARE_LIMIT
        tests.append(test)
        self._note_news()

    def shed(self, run: Run, slice_name: str, reason: str, route: str = "") -> None:
        """Count a mirrored request that was not compared.

        Args:
            run: The run that it was mirrored for.
            slice_name: Its slice.
            reason: The value of a `ShedReason`.
            route: Name of its route, if it could not have been compared.
        """
        sheds, key = self._waiting_of(run).sheds, (slice_name, reason, route)
        sheds[key] = sheds.get(key, 0) + 1
        self._note_news()

    def fingerprint(self, run: Run, variant: str, digest: str, facts: Mapping[str, str]) -> None:
        """Report the fingerprint of a build that was read anew, and the facts that it is of."""
        waiting = self._waiting_of(run)
        waiting.fingerprints[variant] = digest
        waiting.builds[variant] = dict(facts)
        self._note_news()

    def _waiting_of(self, run: Run) -> _Waiting:
        waiting = self._waiting.get(run)
        if waiting is None:
            waiting = self._waiting[run] = _Waiting()
        return waiting

    def _note_news(self) -> None:
        if self._unacknowledged is None:
            self.has_news.set()

    # Sending

    @property
    def is_empty(self) -> bool:
        """Whether all observations are acknowledged."""
        return self._unacknowledged is None and not self._waiting

    @property
    def waiting(self) -> int:
        """Pairs that are in no report yet."""
        return self._waiting_count

    def rewind(self) -> None:
        """Have the unacknowledged report sent again, on a new connection."""
        self._is_sent = False

    def next_report(self) -> Report | None:
        """Return the report to send now; None if one is on its way or there is nothing to send."""
        if self._unacknowledged is None:
            if not self._waiting:
                return None
            self._seq += 1
            self._unacknowledged = Report(
                self.source, self.process_start_id, self._seq, self._take()
            )
        elif self._is_sent:
            return None
        self._is_sent = True
        return self._unacknowledged

    def acknowledge(self, process_start_id: str, seq: int) -> None:
        """Forget the report: the control process has made all reports up to `seq` durable."""
        report = self._unacknowledged
        if report is None or process_start_id != self.process_start_id or seq < report.seq:
            return
        self._unacknowledged = None
        self._note_news()

    def _take(self) -> tuple[RunReport, ...]:
        """Take runs out until the report is large; one that had a turn waits behind the others."""
        pairs_left = others_left = REPORT_ROWS
        reports: list[RunReport] = []
        served: dict[Run, _Waiting] = {}
        for run in list(self._waiting):
            if others_left <= 0:
                break
            waiting = self._waiting.pop(run)
            report = waiting.take(run, pairs_left)
            pairs_left -= len(report.pairs)
            others_left -= _rows_beside_pairs(report)
            self._waiting_count -= len(report.pairs)
            if waiting.pairs:
                (served if report.pairs else self._waiting)[run] = waiting
            if _has_content(report):
                reports.append(report)
        self._waiting |= served
        return tuple(reports)


def _rows_beside_pairs(report: RunReport) -> int:
    rows = (report.counts, report.trips, report.self_tests, report.sheds, report.scorer_tests)
    return sum(map(len, rows)) + len(report.fingerprints)


def _has_content(report: RunReport) -> bool:
    return bool(report.pairs) or _rows_beside_pairs(report) > 0


def _short(detail: str) -> str:
    return detail[:DETAIL_CHARS]


def _finite_pair(pair: Pair) -> Pair:
    # JSON knows neither NaN nor infinity.
    changes: dict[str, float | None] = {
        name: None
        for name in ("displacement", "kl", "agreement")
        if (value := getattr(pair, name)) is not None and not math.isfinite(value)
    }
    if not math.isfinite(pair.engine_seconds):
        changes["engine_seconds"] = 0.0
    return msgspec.structs.replace(pair, **changes) if changes else pair
