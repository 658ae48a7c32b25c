"""The demo's traffic: what it counts, and when."""

import asyncio

import httpx
import pytest

from penumbra.serve.demo import traffic
from penumbra.serve.demo.tasks import Task
from penumbra.serve.demo.traffic import Reply, Traffic


async def test_answers_that_were_under_way_belong_to_the_flags_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variant, may_answer = "int8", asyncio.Event()

    async def ask(
        http: httpx.AsyncClient, task: Task, headers: dict[str, str], *, is_stream: bool
    ) -> Reply:
        decided = variant
        await may_answer.wait()
        await asyncio.sleep(0.001)
        return Reply(task, decided, 1, is_right=True)

    monkeypatch.setattr(traffic, "ask", ask)
    load = Traffic("http://gateway", clients=4)
    async with load.flowing():
        await asyncio.sleep(0.01)
        variant = "full"  # the kill switch, with four candidate answers under way
        settling = asyncio.create_task(load.settle())
        await asyncio.sleep(0.01)
        assert not settling.done()
        may_answer.set()
        await settling
        before = load.next_counts()
        await asyncio.sleep(0.05)
        after = load.next_counts()
    assert before.by_variant["int8"] == 4
    assert set(after.by_variant) == {"full"}
