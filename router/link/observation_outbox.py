"""Gathers what one process observes, and hands it over in reports that each arrive exactly once.

At most one report is on its way. What is observed meanwhile becomes the next one: an idle link
sends at once, a busy one in batches. A report keeps its number until it is acknowledged, so the
control process, which knows it by (source, incarnation, seq), counts one that was sent twice once.

The reporter never waits and never grows without bound: past the limit the newest pair is dropped,
counted, and told as shed, so that whoever judges knows that it is missing.

Reading order: ObservationOutbox.pair, ObservationOutbox.next_report, ObservationOutbox.acknowledge.
"""

import asyncio
import math
import sys
from collections import deque
from itertools import islice

import msgspec

from penumbra.monitoring.observations import (
    Counts,
    Pair,
    Report,
    Run,
    RunReport,
    SelfTest,
    Shed,
    Signal,
    Trip,
)

LIMIT = 20_000
"""Pairs that may wait."""
RARE_LIMIT = 100
"""Trips that may wait, and self-tests, of each run: they have room however many pairs there are."""
PAIRS_A_REPORT = 1_000
"""So that a message stays far below the largest that the other end takes."""
UNREPORTED = "unreported"
"""Reason of a shed: the pair was compared, but too many were waiting for the control process."""

_LARGEST = sys.float_info.max


class _Gathered:
    """What is waiting, of one run."""

    __slots__ = ("counts", "fingerprints", "pairs", "self_tests", "sheds", "trips")

    def __init__(self) -> None:
        self.pairs: deque[Pair] = deque()
        self.counts: dict[tuple[str, Signal], list[int]] = {}
        self.trips: list[Trip] = []
        self.self_tests: deque[SelfTest] = deque(maxlen=RARE_LIMIT)
        self.sheds: dict[tuple[str, str], int] = {}
        self.fingerprints: dict[str, str] = {}

    def take(self, run: Run, most_pairs: int) -> RunReport:
        """All but the pairs that are too many, which stay; no longer waiting then."""
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
            sheds=tuple(Shed(name, why, count) for (name, why), count in self.sheds.items()),
            fingerprints=self.fingerprints,
        )
        self.counts, self.trips = {}, []
        self.self_tests.clear()
        self.sheds, self.fingerprints = {}, {}
        return report


class ObservationOutbox:
    """Observations on their way from one process to the control process.

    Args:
        source: Id of the process.
        incarnation: Which life of it: another one at every start.
        limit: How many pairs may wait.
    """

    def __init__(self, source: str, process_start_id: str, limit: int = LIMIT) -> None:
        self.source = source
        self.process_start_id = process_start_id
        self.dropped = 0
        """Observations that were lost because too many were waiting."""
        self.has_news = asyncio.Event()
        """Set when `next_report` may have a report to give; never while one is on its way. The
        sender clears it before it waits."""
        self._limit = limit
        self._waiting: dict[Run, _Gathered] = {}
        self._waiting_count = 0
        self._unacknowledged: Report | None = None
        self._is_sent = False
        self._seq = 0

    # What is observed

    def pair(self, run: Run, pair: Pair) -> None:
        """A compared request. Figures that are not finite are left out (`not_finite` tells)."""
        if self._waiting_count >= self._limit:
            self.dropped += 1
            self.shed(run, pair.slice, UNREPORTED)
            return
        self._waiting_count += 1
        self._of(run).pairs.append(_finite_pair(pair))
        self._tell_news()

    def count(self, run: Run, slice_name: str, signal: Signal, *, is_one: bool) -> None:
        """One observation of a {0, 1} signal."""
        counts = self._of(run).counts.setdefault((slice_name, signal), [0, 0])
        counts[is_one] += 1
        self._tell_news()

    def trip(self, run: Run, trip: Trip) -> None:
        """This process took the candidate out of service."""
        trips = self._of(run).trips
        if len(trips) < RARE_LIMIT:
            trips.append(trip)
            self._tell_news()
        else:
            self.dropped += 1

    def self_test(self, run: Run, test: SelfTest) -> None:
        """The baseline was scored against itself. An infinite gap is told as the largest float."""
        if not math.isfinite(test.largest_gap):
            test = msgspec.structs.replace(test, largest_gap=_LARGEST)
        tests = self._of(run).self_tests
        self.dropped += len(tests) == RARE_LIMIT
        tests.append(test)
        self._tell_news()

    def shed(self, run: Run, slice_name: str, reason: str) -> None:
        """A mirrored request was not compared."""
        sheds = self._of(run).sheds
        sheds[slice_name, reason] = sheds.get((slice_name, reason), 0) + 1
        self._tell_news()

    def fingerprint(self, run: Run, variant: str, digest: str) -> None:
        """The fingerprint of a build was read anew."""
        self._of(run).fingerprints[variant] = digest
        self._tell_news()

    def _of(self, run: Run) -> _Gathered:
        gathered = self._waiting.get(run)
        if gathered is None:
            gathered = self._waiting[run] = _Gathered()
        return gathered

    def _tell_news(self) -> None:
        if self._unacknowledged is None:
            self.has_news.set()

    # How it travels

    @property
    def is_empty(self) -> bool:
        """Whether everything that was observed is acknowledged."""
        return self._unacknowledged is None and not self._waiting

    @property
    def waiting(self) -> int:
        """Pairs that are in no report yet."""
        return self._waiting_count

    def rewind(self) -> None:
        """The connection is a new one: what is not acknowledged must be sent again."""
        self._is_sent = False

    def next_report(self) -> Report | None:
        """The report to send now; None if one is on its way or there is nothing to tell."""
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
        """The control process has made all reports up to `seq` durable."""
        report = self._unacknowledged
        if report is None or process_start_id != self.process_start_id or seq < report.seq:
            return
        self._unacknowledged = None
        self._tell_news()

    def _take(self) -> tuple[RunReport, ...]:
        left = PAIRS_A_REPORT
        reports = []
        for run in list(self._waiting):
            gathered = self._waiting[run]
            report = gathered.take(run, left)
            left -= len(report.pairs)
            self._waiting_count -= len(report.pairs)
            if not gathered.pairs:
                del self._waiting[run]
            if _says_something(report):
                reports.append(report)
        return tuple(reports)


def _says_something(report: RunReport) -> bool:
    return bool(
        report.pairs
        or report.counts
        or report.trips
        or report.self_tests
        or report.sheds
        or report.fingerprints
    )


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
