"""IntervalCache of intervals for those who ask often."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from penumbra.deployments.metrics.interval_cache import Interval, IntervalCache, interval_of
from penumbra.monitoring.stats.guard import Guard, GuardSpec, StreamView

NAME = ("demo", "int8", "r-1", "harm", "other")


def guard() -> Guard:
    return Guard(GuardSpec({"other": 0.1}, 0.1, -1.0, 1.0, 0.01))


class Work:
    """Works intervals out, and keeps a record; stops where it is told to."""

    def __init__(self) -> None:
        self.streams: list[StreamView] = []
        self.threads: set[int] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, stream: StreamView) -> Interval:
        assert self.may_go_on.wait(10)
        self.streams.append(stream)
        self.threads.add(threading.get_ident())
        return interval_of(stream)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def ends(work: Work) -> AsyncIterator[IntervalCache]:
    made = IntervalCache(work)
    yield made
    work.may_go_on.set()
    await made.close()


async def test_ends_are_exact_and_worked_out_in_another_thread(
    ends: IntervalCache, work: Work
) -> None:
    observed = guard()
    for value in (0.0, 1.0, 0.0, -1.0, 0.3):
        observed.observe("other", value)
    stream = observed.slice("other")
    assert ends.of(NAME) is None
    await ends.settle({NAME: stream}, 10.0)
    assert ends.of(NAME) == (stream.lower, stream.upper)
    assert threading.get_ident() not in work.threads


async def test_what_has_not_changed_is_not_worked_out_again(
    ends: IntervalCache, work: Work
) -> None:
    observed = guard()
    observed.observe("other", 1.0)
    for _ in range(3):
        await ends.settle({NAME: observed.slice("other")}, 10.0)
    assert len(work.streams) == 1
    observed.observe("other", 1.0)
    await ends.settle({NAME: observed.slice("other")}, 10.0)
    assert [stream.count for stream in work.streams] == [1, 2]


async def test_who_asks_is_not_held_up_and_gets_the_last_known_ends(
    ends: IntervalCache, work: Work
) -> None:
    observed = guard()
    observed.observe("other", 1.0)
    first = observed.slice("other")
    await ends.settle({NAME: first}, 10.0)
    work.may_go_on.clear()
    for _ in range(50):
        observed.observe("other", 1.0)
        await ends.settle({NAME: observed.slice("other")}, 0.001)
        assert ends.of(NAME) == interval_of(first)
    assert ends.is_behind
    work.may_go_on.set()
    await ends.settle({NAME: observed.slice("other")}, 10.0)
    assert ends.of(NAME) == interval_of(observed.slice("other"))
    # What was asked for in between is of no interest any more, but for the one under way.
    assert [stream.count for stream in work.streams] == [1, 2, 51]


async def test_who_waits_longest_is_next(ends: IntervalCache, work: Work) -> None:
    observed = {(name,): guard() for name in "abcd"}
    for one in observed.values():
        one.observe("other", 1.0)
    work.may_go_on.clear()
    for busy in ("a", "d"):
        observed[busy,].observe("other", 0.5)
        await ends.settle({n: one.slice("other") for n, one in observed.items()}, 0.001)
    work.may_go_on.set()
    await ends.settle({n: one.slice("other") for n, one in observed.items()}, 10.0)
    # `a` was under way with two observations, `d` got its second before it was its turn.
    assert [stream.count for stream in work.streams] == [2, 1, 1, 2]


async def test_streams_that_are_over_are_forgotten(ends: IntervalCache) -> None:
    observed = guard()
    observed.observe("other", 1.0)
    await ends.settle({NAME: observed.slice("other")}, 10.0)
    await ends.settle({}, 10.0)
    assert ends.of(NAME) is None


async def test_a_failure_is_logged_and_the_next_scrape_begins_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = [RuntimeError("no memory")]

    def fails_once(stream: StreamView) -> Interval:
        if failures:
            raise failures.pop()
        return interval_of(stream)

    ends, observed = IntervalCache(fails_once), guard()
    observed.observe("other", 1.0)
    await ends.settle({NAME: observed.slice("other")}, 10.0)
    assert ends.of(NAME) is None
    assert [record.message for record in caplog.records] == ["intervals_not_worked_out"]
    await ends.settle({NAME: observed.slice("other")}, 10.0)
    assert ends.of(NAME) == interval_of(observed.slice("other"))


async def test_leaving_off_ends_the_work() -> None:
    ends, observed = IntervalCache(), guard()
    observed.observe("other", 1.0)
    await ends.settle({(str(n),): observed.slice("other") for n in range(500)}, 0.001)
    await ends.close()
    assert not ends.is_behind
    assert len(asyncio.all_tasks()) == 1
