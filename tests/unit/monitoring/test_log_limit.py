"""A fault that repeats is logged at once, and then once a minute with a count."""

from penumbra.monitoring.log_limit import SECONDS, LogLimit


def test_the_first_line_is_written_and_repeats_are_counted_for_a_minute() -> None:
    clock = [0.0]
    limit = LogLimit(lambda: clock[0])
    assert limit.take() == 0
    assert [limit.take() for _ in range(3)] == [None, None, None]
    clock[0] = SECONDS
    assert limit.take() == 3
    assert limit.take() is None


def test_a_fault_that_comes_back_is_logged_at_once() -> None:
    limit = LogLimit(lambda: 0.0)
    assert not limit.end()
    limit.take()
    limit.take()
    assert limit.end()
    assert limit.take() == 0


def test_each_kind_of_fault_is_counted_by_itself() -> None:
    limit = LogLimit(lambda: 0.0)
    assert [limit.take("a"), limit.take("b"), limit.take("a")] == [0, 0, None]
