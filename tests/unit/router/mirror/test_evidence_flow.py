"""Evidence that flows, and evidence that has stopped."""

import pytest

from penumbra.monitoring.observations import Run
from penumbra.router.mirror.evidence_flow import (
    GRACE_SECONDS,
    LACKING,
    MOST_LACKING,
    MOST_SECONDS,
    PATIENCE_SECONDS,
    EvidenceFlow,
)
from penumbra.router.mirror.shed_reason import ShedReason

RUN = Run("demo", "int8", "run-1")
STOPPED = {"demo": ("int8",)}


LATE = 100.0 + GRACE_SECONDS


def lack(
    flow: EvidenceFlow,
    count: int = MOST_LACKING,
    reason: ShedReason = ShedReason.BUSY,
    *,
    since: float = 100.0,
    until: float = LATE,
    kind: str = "",
) -> EvidenceFlow:
    """Shed so many requests, evenly over a time."""
    for number in range(count):
        at = since + (until - since) * number / max(1, count - 1)
        flow.lack(RUN, reason, at, kind)
    return flow


def lacking(count: int, reason: ShedReason = ShedReason.BUSY) -> EvidenceFlow:
    return lack(EvidenceFlow(), count, reason)


@pytest.mark.parametrize("reason", sorted(LACKING - {ShedReason.BUDGET}))
def test_sheds_are_no_evidence(reason: ShedReason) -> None:
    assert lacking(MOST_LACKING, reason).stopped(LATE) == STOPPED
    assert lacking(MOST_LACKING - 1, reason).stopped(LATE) == {}
    soon = lack(EvidenceFlow(), 10 * MOST_LACKING, reason, until=LATE - 0.1)
    assert soon.stopped(LATE + 1e6) == {}


@pytest.mark.parametrize("reason", sorted(set(ShedReason) - LACKING))
def test_what_was_never_to_be_evidence_is_none_that_is_missing(reason: ShedReason) -> None:
    assert lacking(10 * MOST_LACKING, reason).stopped(LATE) == {}


def test_no_traffic_is_not_silence() -> None:
    assert EvidenceFlow().stopped(1e9) == {}


def test_one_pair_in_time_is_enough() -> None:
    flow = lacking(10 * MOST_LACKING)
    flow.come(RUN, LATE)
    assert flow.stopped(LATE) == {}
    lack(flow, since=LATE, until=LATE + GRACE_SECONDS - 0.1)
    assert flow.stopped(LATE + GRACE_SECONDS) == {}
    flow.lack(RUN, ShedReason.BUSY, LATE + GRACE_SECONDS)
    assert flow.stopped(LATE + GRACE_SECONDS) == STOPPED


def test_a_kind_of_which_no_more_come_lacks_nothing() -> None:
    """The lease ended for another reason: the candidate is asked no more."""
    flow = EvidenceFlow()
    lack(flow, since=100.0, until=103.0, kind="int8")
    for number in range(100):
        flow.come(RUN, 103.0 + number, "full")
        assert flow.stopped(103.0 + number) == {}


def test_each_candidate_and_each_run_counts_for_itself() -> None:
    flow = lacking(MOST_LACKING)
    flow.come(Run("demo", "int4", "run-9"), LATE)
    flow.come(Run("other", "int8", "run-8"), LATE)
    assert flow.stopped(LATE) == STOPPED
    flow.lack(Run("demo", "int8", "run-2"), ShedReason.BUSY, LATE)
    assert flow.stopped(LATE + 1e6) == {}


def test_a_budget_that_is_spent_refills_and_is_no_silence_for_minutes() -> None:
    flow = lack(EvidenceFlow(), reason=ShedReason.BUDGET, until=99.9 + MOST_SECONDS)
    lack(flow, reason=ShedReason.QUEUE_ITEMS, since=100.0, until=99.9 + MOST_SECONDS)
    assert flow.stopped(99.9 + MOST_SECONDS) == {}
    flow.lack(RUN, ShedReason.QUEUE_ITEMS, 100.0 + MOST_SECONDS)
    assert flow.stopped(100.0 + MOST_SECONDS) == STOPPED


def test_a_pause_that_is_usual_is_no_silence() -> None:
    """A pair every 40 s, and 200 requests that are shed between two."""
    flow, now = EvidenceFlow(), 0.0
    told = []
    for _ in range(20):
        flow.come(RUN, now)
        for _ in range(200):
            now += 0.2
            flow.lack(RUN, ShedReason.BUSY, now)
            told.append(flow.stopped(now))
    assert {} in told
    assert told[400:].count({}) == len(told[400:])  # from the second pause on it is usual
    for _ in range(1000):
        now += 0.2
        flow.lack(RUN, ShedReason.BUSY, now)
    assert flow.stopped(now) == STOPPED


def test_answers_of_the_candidate_are_not_made_up_for_by_the_baselines() -> None:
    flow = EvidenceFlow()
    for number in range(2 * MOST_LACKING):
        flow.lack(RUN, ShedReason.IDS_MISSING, float(number), "int8")
        flow.come(RUN, float(number), "full")
    assert flow.stopped(2.0 * MOST_LACKING) == STOPPED


def test_it_is_forgotten_when_nothing_more_is_lacking() -> None:
    flow = lacking(MOST_LACKING)
    assert flow.stopped(LATE + MOST_SECONDS) == STOPPED
    assert flow.stopped(LATE + MOST_SECONDS + 0.1) == {}


def test_without_a_lease_the_baselines_answers_show_that_all_is_well_again() -> None:
    """The candidate gives no answers then; each time it is trusted later."""
    flow, now = EvidenceFlow(), 0.0
    for patience in (PATIENCE_SECONDS, 2 * PATIENCE_SECONDS, 4 * PATIENCE_SECONDS):
        lack(flow, since=now, until=now + GRACE_SECONDS, kind="int8")
        now += GRACE_SECONDS
        flow.come(RUN, now + patience - 0.1, "full")
        assert flow.stopped(now + patience - 0.1) == STOPPED
        now += patience
        flow.come(RUN, now, "full")
        assert flow.stopped(now) == {}
