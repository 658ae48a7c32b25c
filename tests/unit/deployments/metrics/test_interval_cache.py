"""IntervalCache: intervals for readers that ask often."""

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
    """Computes intervals, and records the streams and threads; stops on request."""

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
async def cache(work: Work) -> AsyncIterator[IntervalCache]:
    made = IntervalCache(work)
    yield made
    work.may_go_on.set()
    await made.close()


async def test_intervals_are_exact_and_computed_in_another_thread(
    cache: IntervalCache, work: Work
) -> None:
    observed = guard()
    for value in (0.0, 1.0, 0.0, -1.0, 0.3):
        observed.observe("other", value)
    stream = observed.slice("other")
    assert cache.get(NAME) is None
    await cache.refresh({NAME: stream}, 10.0)
    assert cache.get(NAME) == (stream.lower, stream.upper)
    assert threading.get_ident() not in work.threads


async def test_an_unchanged_stream_is_not_computed_again(cache: IntervalCache, work: Work) -> None:
    observed = guard()
    observed.observe("other", 1.0)
    for _ in range(3):
        await cache.refresh({NAME: observed.slice("other")}, 10.0)
    assert len(work.streams) == 1
    observed.observe("other", 1.0)
    await cache.refresh({NAME: observed.slice("other")}, 10.0)
    assert [stream.count for stream in work.streams] == [1, 2]


async def test_a_reader_is_not_held_up_and_gets_the_last_known_interval(
    cache: IntervalCache, work: Work
) -> None:
    observed = guard()
    observed.observe("other", 1.0)
    first = observed.slice("other")
    await cache.refresh({NAME: first}, 10.0)
    work.may_go_on.clear()
    for _ in range(50):
        observed.observe("other", 1.0)
        await cache.refresh({NAME: observed.slice("other")}, 0.001)
        assert cache.get(NAME) == interval_of(first)
    assert cache.is_behind
    work.may_go_on.set()
    await cache.refresh({NAME: observed.slice("other")}, 10.0)
    assert cache.get(NAME) == interval_of(observed.slice("other"))
    # Of the requests in between only the stream under way was computed.
    assert [stream.count for stream in work.streams] == [1, 2, 51]


async def test_the_stream_that_waits_longest_is_next(cache: IntervalCache, work: Work) -> None:
    observed = {(name,): guard() for name in "abcd"}
    for stream_guard in observed.values():
        stream_guard.observe("other", 1.0)
    work.may_go_on.clear()
    for busy in ("a", "d"):
        observed[busy,].observe("other", 0.5)
        await cache.refresh(
            {name: stream.slice("other") for name, stream in observed.items()}, 0.001
        )
    work.may_go_on.set()
    await cache.refresh({name: stream.slice("other") for name, stream in observed.items()}, 10.0)
    # `a` was under way with two observations; `d` got its second before its turn.
    assert [stream.count for stream in work.streams] == [2, 1, 1, 2]


async def test_streams_that_are_over_are_forgotten(cache: IntervalCache) -> None:
    observed = guard()
    observed.observe("other", 1.0)
    await cache.refresh({NAME: observed.slice("other")}, 10.0)
    await cache.refresh({}, 10.0)
    assert cache.get(NAME) is None


async def test_a_failure_is_logged_and_the_next_scrape_begins_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = [RuntimeError("no memory")]

    def fails_once(stream: StreamView) -> Interval:
        if failures:
            raise failures.pop()
        return interval_of(stream)

    cache, observed = IntervalCache(fails_once), guard()
    observed.observe("other", 1.0)
    await cache.refresh({NAME: observed.slice("other")}, 10.0)
    assert cache.get(NAME) is None
    assert [record.message for record in caplog.records] == ["intervals_not_worked_out"]
    await cache.refresh({NAME: observed.slice("other")}, 10.0)
    assert cache.get(NAME) == interval_of(observed.slice("other"))


async def test_closing_ends_the_work() -> None:
    cache, observed = IntervalCache(), guard()
    observed.observe("other", 1.0)
    await cache.refresh({(str(n),): observed.slice("other") for n in range(500)}, 0.001)
    await cache.close()
    assert not cache.is_behind
    assert len(asyncio.all_tasks()) == 1
