"""Evidence that flows, and evidence that has stopped."""

import pytest

from penumbra.monitoring.observations import Run
from penumbra.router.mirror.evidence_flow import (
    GRACE_SECONDS,
    LACKING,
    MOST_LACKING,
    MOST_SECONDS,
    EvidenceFlow,
)
from penumbra.router.mirror.shed_reason import ShedReason

RUN = Run("demo", "int8", "run-1")
STOPPED = {"demo": ("int8",)}


def lacking(count: int, reason: ShedReason = ShedReason.BUSY, run: Run = RUN) -> EvidenceFlow:
    flow = EvidenceFlow()
    for _ in range(count):
        flow.lack(run, reason, 100.0)
    return flow


LATE = 100.0 + GRACE_SECONDS


@pytest.mark.parametrize("reason", sorted(LACKING))
def test_sheds_are_no_evidence(reason: ShedReason) -> None:
    assert lacking(MOST_LACKING, reason).stopped(LATE) == STOPPED
    assert lacking(MOST_LACKING - 1, reason).stopped(LATE) == {}
    assert lacking(10 * MOST_LACKING, reason).stopped(LATE - 0.1) == {}


@pytest.mark.parametrize("reason", sorted(set(ShedReason) - LACKING))
def test_what_was_never_to_be_evidence_is_none_that_is_missing(reason: ShedReason) -> None:
    assert lacking(10 * MOST_LACKING, reason).stopped(LATE) == {}


def test_no_traffic_is_not_silence() -> None:
    assert EvidenceFlow().stopped(1e9) == {}


def test_one_pair_in_time_is_enough() -> None:
    flow = lacking(10 * MOST_LACKING)
    flow.come(RUN, LATE)
    assert flow.stopped(LATE) == {}
    for _ in range(MOST_LACKING):
        flow.lack(RUN, ShedReason.BUDGET, LATE)
    assert flow.stopped(LATE + GRACE_SECONDS - 0.1) == {}
    assert flow.stopped(LATE + GRACE_SECONDS) == STOPPED


def test_each_candidate_and_each_run_counts_for_itself() -> None:
    flow = lacking(MOST_LACKING)
    flow.come(Run("demo", "int4", "run-9"), LATE)
    flow.come(Run("other", "int8", "run-8"), LATE)
    assert flow.stopped(LATE) == STOPPED
    flow.lack(Run("demo", "int8", "run-2"), ShedReason.BUSY, LATE)
    assert flow.stopped(LATE + 1e6) == {}


def test_a_small_budget_is_no_silence() -> None:
    """A pair every 40 s, and 200 requests that are shed between two."""
    flow, now = EvidenceFlow(), 0.0
    told = []
    for _ in range(20):
        flow.come(RUN, now)
        for _ in range(200):
            now += 0.2
            flow.lack(RUN, ShedReason.BUDGET, now)
            told.append(flow.stopped(now))
    assert {} in told
    assert told[400:].count({}) == len(told[400:])  # from the second pause on it is usual
    for _ in range(1000):
        now += 0.2
        flow.lack(RUN, ShedReason.BUDGET, now)
    assert flow.stopped(now) == STOPPED


def test_answers_of_the_candidate_are_not_made_up_for_by_the_baselines() -> None:
    flow = EvidenceFlow()
    for number in range(2 * MOST_LACKING):
        flow.lack(RUN, ShedReason.IDS_MISSING, float(number), "int8")
        flow.come(RUN, float(number), "full")
    assert flow.stopped(2.0 * MOST_LACKING) == STOPPED


def test_it_is_forgotten_when_nothing_more_is_lacking() -> None:
    flow = lacking(MOST_LACKING)
    assert flow.stopped(100.0 + MOST_SECONDS) == STOPPED
    assert flow.stopped(100.1 + MOST_SECONDS) == {}
