"""The thread for the store's work: bounded waits, and nothing is changed after a refusal."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from penumbra.deployments.control.store_thread import StoreThread
from penumbra.deployments.errors import StoreInDoubt, StoreUnavailable
from penumbra.deployments.store.attempt import begin_commit


@pytest.fixture
def thread() -> Iterator[StoreThread]:
    thread = StoreThread("store of the test")
    yield thread
    thread.close(5.0)


class Hanging:
    """Work that hangs before or within its commit until it is let go on."""

    def __init__(self, *, commits_first: bool) -> None:
        self.go_on = threading.Event()
        self.ended = threading.Event()
        self.has_committed = False
        self._commits_first = commits_first

    def __call__(self) -> None:
        try:
            if self._commits_first:
                begin_commit()
            self.go_on.wait(30.0)
            if not self._commits_first:
                begin_commit()
            self.has_committed = True
        finally:
            self.ended.set()


async def test_work_returns_and_raises_what_it_does(thread: StoreThread) -> None:
    assert await thread.run(lambda: 1, 5.0) == 1
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0, 5.0)
    assert thread.stuck_seconds == 0.0


async def test_work_that_was_given_up_before_its_commit_never_commits(thread: StoreThread) -> None:
    work = Hanging(commits_first=False)
    with pytest.raises(StoreUnavailable, match="nothing was changed") as refusal:
        await thread.run(work, 0.05)
    assert not isinstance(refusal.value, StoreInDoubt)
    work.go_on.set()
    await asyncio.to_thread(work.ended.wait, 5.0)
    assert not work.has_committed


async def test_work_that_was_given_up_within_its_commit_is_in_doubt(thread: StoreThread) -> None:
    work = Hanging(commits_first=True)
    with pytest.raises(StoreInDoubt, match="not known whether"):
        await thread.run(work, 0.05)
    work.go_on.set()
    await asyncio.to_thread(work.ended.wait, 5.0)
    assert work.has_committed


async def test_while_it_is_stuck_all_else_fails_at_once_and_is_never_done(
    thread: StoreThread,
) -> None:
    work = Hanging(commits_first=False)
    with pytest.raises(StoreUnavailable):
        await thread.run(work, 0.05)
    assert thread.stuck_seconds > 0.0
    done: list[int] = []
    with pytest.raises(StoreUnavailable, match="has not answered for"):
        await thread.run(lambda: done.append(1), 60.0)
    work.go_on.set()
    await asyncio.to_thread(work.ended.wait, 5.0)
    async with asyncio.timeout(5.0):
        while thread.stuck_seconds:  # noqa: ASYNC110 -- the thread has no event for it
            await asyncio.sleep(0)
    await thread.run(lambda: done.append(2), 5.0)
    assert done == [2]


async def test_work_behind_slow_work_is_dropped_when_its_wait_is_over(thread: StoreThread) -> None:
    work, done = Hanging(commits_first=False), list[int]()
    slow = asyncio.create_task(thread.run(work, 30.0))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await thread.run(lambda: done.append(1), 0.05)
    assert thread.stuck_seconds == 0.0  # the slow work's caller still waits
    work.go_on.set()
    await slow
    assert work.has_committed
    await thread.run(lambda: done.append(2), 5.0)
    assert done == [2]


async def test_closing_waits_only_so_long_for_work_that_hangs() -> None:
    thread, work = StoreThread("store of the test"), Hanging(commits_first=False)
    with pytest.raises(StoreUnavailable):
        await thread.run(work, 0.05)
    thread.close(0.05)
    assert not work.ended.is_set()
    work.go_on.set()
