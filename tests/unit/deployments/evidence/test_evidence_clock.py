"""The clock that only pairs move, and self-tests that expire by one."""

from hypothesis import given
from hypothesis import strategies as st

from penumbra.deployments.evidence.evidence_clock import EvidenceClock, StageClocks
from penumbra.deployments.evidence.self_tests import EXPIRES_SECONDS, SelfTests
from penumbra.deployments.rollouts.findings import Flow
from penumbra.monitoring.observations import Pair, SelfTest
from tests.support.rollouts import pair, rollout_spec

AT = 1_767_000_000.0
DAY = 86_400.0


def clock(*times: tuple[str, float], longest: float = 100.0) -> EvidenceClock:
    found = EvidenceClock(longest)
    for source, at in times:
        found.take(source, AT + at)
    return found


def test_time_with_pairs_counts_and_a_gap_counts_for_little() -> None:
    steady = [("a", 10.0 * number) for number in range(7)]
    assert clock(*steady).seconds == 60.0
    assert clock(*steady, ("a", 60.0 + DAY)).seconds == 160.0  # downtime, or a step of the clock
    assert clock(*steady).pairs == 7


def test_a_clock_that_is_set_back_goes_on_from_there() -> None:
    assert clock(("a", 0), ("a", 50), ("a", 50 - DAY), ("a", 80 - DAY)).seconds == 80.0


def test_pairs_that_come_out_of_order_count_once() -> None:
    assert clock(("a", 0), ("a", 30), ("a", 10), ("a", 40), ("a", 20), ("a", 50)).seconds == 50.0


def test_two_comparators_at_once_count_once_also_if_their_clocks_are_a_day_apart() -> None:
    both = [(name, 10.0 * n + off) for n in range(7) for name, off in (("a", 0.0), ("b", -DAY))]
    assert clock(*both).seconds == 60.0


def test_a_comparator_that_takes_over_goes_on_from_there() -> None:
    assert clock(("a", 0), ("a", 60), ("b", 5 * DAY), ("b", 5 * DAY + 40)).seconds == 100.0


def test_pairs_without_a_time_move_nothing() -> None:
    found = EvidenceClock(100.0)
    for at in (0.0, 0.0, AT, 0.0, AT + 5):
        found.take("a", at)
    assert (found.seconds, found.pairs) == (5.0, 5)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e4)), max_size=50))
def test_it_never_runs_faster_than_the_gaps_allow(times: list[tuple[str, float]]) -> None:
    found = clock(*times)
    assert 0.0 <= found.seconds <= 100.0 * max(0, len(times) - 1)
    in_order = clock(*(("a", at) for _, at in sorted(times, key=lambda each: each[1])))
    spread = max((at for _, at in times), default=0.0) - min((at for _, at in times), default=0.0)
    assert in_order.seconds <= spread + 1e-6


def live(number: int, epoch: int) -> Pair:
    return pair(number, answered_by="int8", epoch=epoch, at=AT + number)


def test_the_candidates_answers_count_by_the_epoch_that_decided_them() -> None:
    clocks = StageClocks(rollout_spec())
    for number, epoch in enumerate((3, 3, 5, 3, 5, 0)):
        clocks.take("a", live(number, epoch))
    clocks.take("a", pair(50, at=AT + 50))  # the baseline's
    assert (clocks.all.pairs, clocks.live.pairs) == (7, 6)
    assert clocks.live_by_epoch == {3: Flow(2.0, 3), 5: Flow(2.0, 2), 0: Flow(1.0, 1)}


def test_of_many_epochs_the_oldest_take_in_the_next() -> None:
    clocks = StageClocks(rollout_spec())
    for number in range(400):
        clocks.take("a", live(number, number + 1))
    assert len(clocks.live_by_epoch) == 256
    assert clocks.live_by_epoch[1].pairs == 145
    assert sum(flow.pairs for flow in clocks.live_by_epoch.values()) == 400


def failing(source: str = "c@one", process_start_id: str = "p1") -> SelfTests:
    tests = SelfTests()
    tests.take(source, process_start_id, SelfTest(False, 3.0, "gap", AT))
    return tests


def pass_time(tests: SelfTests, seconds: float, source: str = "c@two") -> None:
    for number in range(int(seconds) // 10 + 2):
        tests.note_pair(source, AT + 10.0 * number)


def test_a_dead_machines_failure_expires_by_the_pairs_of_others() -> None:
    tests = failing()
    assert tests.failure == "the self-test of c@one failed: gap"
    pass_time(tests, EXPIRES_SECONDS - 30)
    assert tests.failure is not None
    pass_time(tests, 0, "c@two")
    later = SelfTests()
    later.take("c@one", "p1", SelfTest(False, 3.0, "gap", AT))
    pass_time(later, EXPIRES_SECONDS)
    assert later.failure is None


def test_a_failure_that_is_told_again_stands() -> None:
    tests = SelfTests()
    for number in range(300):
        tests.note_pair("c@two", AT + 10.0 * number)
        if number % 10 == 0:
            tests.take("c@one", "p1", SelfTest(False, 3.0, "gap", AT))
    assert tests.failure is not None


def test_one_machines_pass_does_not_hide_anothers_failure() -> None:
    tests = failing()
    tests.take("c@two", "p2", SelfTest(True, 0.0, "", AT))
    assert tests.failure is not None
    tests.take("c@one", "p3", SelfTest(True, 0.0, "", AT))  # its machine, started anew
    assert tests.failure is None


def test_silence_expires_nothing() -> None:
    tests = failing()
    tests.note_pair("c@two", AT)
    tests.note_pair("c@two", AT + 1000 * DAY)
    assert tests.failure is not None
