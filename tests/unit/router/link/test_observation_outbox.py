import math
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.observations import (
    Counts,
    Pair,
    Report,
    Run,
    SelfTest,
    Shed,
    Signal,
    Trip,
)
from penumbra.router.bounds import REPORT_ROWS
from penumbra.router.link.messages import encode, from_gateway
from penumbra.router.link.observation_outbox import (
    RARE_LIMIT,
    UNREPORTED,
    ObservationOutbox,
)

RUN = Run("demo", "int8", "run-1")
OTHER = Run("demo", "int4", "run-1")


def pair(number: int) -> Pair:
    return Pair(request_id=f"req-{number}", slice="facts", cluster=number)


def outbox(limit: int = 100) -> ObservationOutbox:
    return ObservationOutbox("gateway-0", "life-1", limit)


def next_report(of: ObservationOutbox) -> Report:
    report = of.next_report()
    assert report is not None
    return report


def test_the_first_observation_can_be_sent_at_once() -> None:
    source = outbox()
    assert not source.has_news.is_set()
    source.pair(RUN, pair(1))
    assert source.has_news.is_set()
    report = next_report(source)
    assert (report.source, report.process_start_id, report.seq) == ("gateway-0", "life-1", 1)
    assert report.runs[0].pairs == (pair(1),)


def test_observations_made_while_a_report_is_on_its_way_are_the_next_report() -> None:
    source = outbox()
    source.pair(RUN, pair(1))
    first = next_report(source)
    for number in range(2, 5):
        source.pair(RUN, pair(number))
    assert source.next_report() is None
    source.acknowledge("life-1", first.seq)
    second = next_report(source)
    assert second.seq == 2
    assert second.runs[0].pairs == (pair(2), pair(3), pair(4))


def test_after_a_broken_connection_the_same_report_is_sent_again() -> None:
    source = outbox()
    source.pair(RUN, pair(1))
    first = next_report(source)
    source.pair(RUN, pair(2))
    source.rewind()
    assert source.next_report() == first
    assert source.next_report() is None


def test_without_observations_there_is_no_report() -> None:
    source = outbox()
    assert source.next_report() is None
    assert source.is_empty
    source.shed(RUN, "facts", "busy")
    assert not source.is_empty
    source.acknowledge("life-1", next_report(source).seq)
    assert source.is_empty
    assert source.next_report() is None


@pytest.mark.parametrize(("process_start_id", "seq"), [("life-0", 1), ("life-1", 0)])
def test_the_acknowledgement_of_another_report_is_ignored(process_start_id: str, seq: int) -> None:
    source = outbox()
    source.pair(RUN, pair(1))
    next_report(source)
    source.acknowledge(process_start_id, seq)
    assert not source.is_empty


def test_every_observation_is_reported_for_its_run() -> None:
    source = outbox()
    for is_one in (True, False, False):
        source.count(RUN, "facts", Signal.FAILURE, is_one=is_one)
    source.count(OTHER, "facts", Signal.FAILURE, is_one=True)
    source.trip(RUN, Trip("failure", "why", 1.0))
    source.self_test(RUN, SelfTest(True, 0.0, "", 1.0))
    source.shed(RUN, "facts", "busy")
    source.shed(RUN, "facts", "busy")
    source.fingerprint(RUN, "int8", "abc", {"engine": "1"})
    mine, other = next_report(source).runs
    assert mine.run == RUN
    assert mine.counts == (Counts("facts", Signal.FAILURE, 2, 1),)
    assert mine.trips == (Trip("failure", "why", 1.0),)
    assert mine.self_tests == (SelfTest(True, 0.0, "", 1.0),)
    assert mine.sheds == (Shed("facts", "busy", 2),)
    assert mine.fingerprints == {"int8": "abc"}
    assert mine.builds == {"int8": {"engine": "1"}}
    assert other.run == OTHER
    assert other.counts == (Counts("facts", Signal.FAILURE, 0, 1),)


def test_over_the_limit_the_newest_pair_is_dropped_and_reported_as_shed() -> None:
    source = outbox(limit=2)
    for number in range(4):
        source.pair(RUN, pair(number))
    assert source.dropped == 2
    [run] = next_report(source).runs
    assert run.pairs == (pair(0), pair(1))
    assert run.sheds == (Shed("facts", UNREPORTED, 2),)


def test_however_many_pairs_wait_a_trip_and_a_self_test_are_told() -> None:
    source = outbox(limit=2)
    for number in range(4):
        source.pair(RUN, pair(number))
    source.trip(RUN, Trip("unhealthy", "why", 1.0))
    source.self_test(RUN, SelfTest(False, 1.0, "", 1.0))
    [run] = next_report(source).runs
    assert run.trips == (Trip("unhealthy", "why", 1.0),)
    assert run.self_tests == (SelfTest(False, 1.0, "", 1.0),)


def test_of_too_many_trips_the_first_are_told_and_of_self_tests_the_last() -> None:
    source = outbox()
    for number in range(RARE_LIMIT + 1):
        source.trip(RUN, Trip("unhealthy", "", float(number)))
        source.self_test(RUN, SelfTest(True, 0.0, "", float(number)))
    assert source.dropped == 2
    [run] = next_report(source).runs
    assert [trip.at for trip in run.trips] == list(range(RARE_LIMIT))
    assert [test.at for test in run.self_tests] == list(range(1, RARE_LIMIT + 1))


def test_the_sender_is_not_woken_while_a_report_is_on_its_way() -> None:
    source = outbox()
    source.pair(RUN, pair(1))
    assert source.has_news.is_set()
    first = next_report(source)
    source.has_news.clear()
    for _ in range(100):
        source.count(RUN, "facts", Signal.FAILURE, is_one=False)
    assert not source.has_news.is_set()
    source.acknowledge("life-1", first.seq)
    assert source.has_news.is_set()


def test_a_report_makes_room_for_new_pairs() -> None:
    source = outbox(limit=2)
    for number in range(2):
        source.pair(RUN, pair(number))
    next_report(source)
    source.pair(RUN, pair(2))
    assert (source.dropped, source.waiting) == (0, 1)


def test_a_long_backlog_goes_out_in_bounded_reports_in_order() -> None:
    total = 2 * REPORT_ROWS + 1
    source = outbox(limit=total)
    for number in range(total):
        source.pair(RUN, pair(number))
    source.trip(OTHER, Trip("failure", "why", 1.0))
    sizes, seen = [], []
    while (report := source.next_report()) is not None:
        sizes.append(sum(len(run.pairs) for run in report.runs))
        seen += [pair.cluster for run in report.runs for pair in run.pairs]
        source.acknowledge("life-1", report.seq)
    assert sizes == [REPORT_ROWS, REPORT_ROWS, 1]
    assert seen == list(range(total))


def test_figures_that_are_not_finite_survive_the_link() -> None:
    source = outbox()
    bad = msgspec.structs.replace(
        pair(1), displacement=math.nan, kl=math.inf, agreement=0.5, not_finite=True
    )
    source.pair(RUN, bad)
    source.self_test(RUN, SelfTest(False, math.inf, "no answer", 1.0))
    report = next_report(source)
    assert from_gateway(encode(report)) == report
    [seen] = report.runs[0].pairs
    assert (seen.displacement, seen.kl, seen.agreement, seen.not_finite) == (None, None, 0.5, True)
    assert report.runs[0].self_tests[0].largest_gap == sys.float_info.max


class Ledger:
    """Takes reports, and counts each (source, process start, seq) once."""

    def __init__(self) -> None:
        self.known: set[tuple[str, str, int]] = set()
        self.pairs: list[int] = []
        self.ones = 0

    def take(self, report: Report) -> None:
        key = (report.source, report.process_start_id, report.seq)
        if key in self.known:
            return
        self.known.add(key)
        for run in report.runs:
            self.pairs += [pair.cluster for pair in run.pairs]
            self.ones += sum(counts.ones for counts in run.counts)


class Source:
    """A process that observes, behind a link that breaks at will."""

    def __init__(self) -> None:
        self.outbox, self.ledger = outbox(limit=1000), Ledger()
        self.pairs = self.ones = 0

    def pair(self) -> None:
        self.outbox.pair(RUN, pair(self.pairs))
        self.pairs += 1

    def count(self) -> None:
        self.outbox.count(RUN, "facts", Signal.TTFT, is_one=True)
        self.ones += 1

    def reconnect(self) -> None:
        self.outbox.rewind()

    def send(self) -> None:
        report = self.send_and_lose_the_answer()
        if report is not None:
            self.outbox.acknowledge(report.process_start_id, report.seq)

    def send_and_lose_the_answer(self) -> Report | None:
        report = self.outbox.next_report()
        if report is not None:
            self.ledger.take(report)
        return report


EVENTS = ["pair", "count", "send", "send_and_lose_the_answer", "reconnect"]


@given(st.lists(st.sampled_from(EVENTS), max_size=60))
def test_whatever_breaks_each_observation_is_counted_once_and_pairs_keep_their_order(
    events: list[str],
) -> None:
    source = Source()
    for event in events:
        getattr(source, event)()
    source.reconnect()
    while not source.outbox.is_empty:
        source.send()
    assert source.ledger.pairs == list(range(source.pairs))
    assert source.ledger.ones == source.ones
