"""The failure process bets in the order of admission, once for each incident."""

from penumbra.monitoring.stats.failure import FailureProcess
from penumbra.router.dispatch.admissions import (
    INCIDENT_SECONDS,
    LONGEST_SECONDS,
    MOST_WAITING,
    Admission,
    AdmissionLedger,
    Verdict,
)

TOLERANCE, ALPHA = 0.005, 0.002


class Scene:
    def __init__(self) -> None:
        self.now = 0.0
        self.released: list[bool] = []
        self.ledger = AdmissionLedger(
            FailureProcess(TOLERANCE, ALPHA),
            lambda _, is_failure: self.released.append(is_failure),
            lambda: self.now,
        )

    def admit(self, count: int = 1) -> list[Admission]:
        return [self.ledger.admit("other") for _ in range(count)]

    def fail(self, admission: Admission) -> bool:
        self.ledger.note_failure(admission)
        return self.ledger.settle(admission, Verdict.FAILED)


def test_a_dead_build_trips_though_hundreds_of_earlier_answers_still_run() -> None:
    scene = Scene()
    for admission in scene.admit(300):
        scene.ledger.settle(admission, Verdict.GOOD)
    scene.admit(300)
    trips = [scene.fail(scene.admit()[0]) for _ in range(8)]
    assert any(trips)


def test_failures_that_come_before_earlier_good_answers_do_not_trip() -> None:
    scene = Scene()
    admissions = scene.admit(1_200)
    early = [admissions[at] for at in (300, 700, 1_100)]
    for number, admission in enumerate(early):
        scene.now = 2.0 * number
        assert not scene.fail(admission)
    as_they_end = FailureProcess(TOLERANCE, ALPHA)
    assert any(as_they_end.observe(is_failure=True) for _ in early)


def test_the_counts_are_released_in_the_order_of_admission() -> None:
    scene = Scene()
    first, second, third = scene.admit(3)
    scene.fail(second)
    scene.ledger.settle(third, Verdict.GOOD)
    assert scene.released == []
    scene.ledger.settle(first, Verdict.GOOD)
    assert scene.released == [False, True, False]


def test_what_says_nothing_of_the_candidate_is_not_counted() -> None:
    scene = Scene()
    for admission in scene.admit(50):
        assert not scene.ledger.settle(admission, Verdict.VOID)
    assert scene.released == []


def test_the_streams_that_one_crash_ends_are_one_bet() -> None:
    scene = Scene()
    for admission in scene.admit(100):
        scene.now += 0.001
        assert not scene.fail(admission)
    assert scene.released.count(True) == 1


def test_requests_admitted_after_a_crash_are_bets_of_their_own() -> None:
    scene = Scene()
    for admission in scene.admit(20):
        scene.fail(admission)
    trips = [scene.fail(scene.admit()[0]) for _ in range(3)]
    assert any(trips)


def test_failures_of_attempts_under_way_are_new_bets_after_the_incident() -> None:
    scene = Scene()
    first, second = scene.admit(2)
    scene.fail(first)
    scene.now = INCIDENT_SECONDS + 0.1
    scene.fail(second)
    assert scene.released == [True, True]


def test_an_incident_that_was_not_its_own_leaves_the_bet_to_the_next_failure() -> None:
    scene = Scene()
    first, second = scene.admit(2)
    scene.ledger.note_failure(first)
    scene.ledger.note_failure(second)
    scene.ledger.settle(first, Verdict.VOID)
    scene.ledger.settle(second, Verdict.FAILED)
    assert scene.released == [True]


def test_an_answer_that_takes_very_long_holds_nothing_up_and_may_still_fail() -> None:
    scene = Scene()
    (slow,) = scene.admit()
    scene.now = LONGEST_SECONDS + 1.0
    (later,) = scene.admit()
    scene.ledger.settle(later, Verdict.GOOD)
    assert scene.released == [False, False]
    scene.fail(slow)
    assert scene.released == [False, False, True]


def test_the_memory_is_bounded() -> None:
    scene = Scene()
    scene.admit(MOST_WAITING + 100)
    assert len(scene.released) == 100
