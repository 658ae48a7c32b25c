"""The whole installation under traffic while flags flip and processes die: no client notices."""

import asyncio
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from penumbra.router.flags.evaluate import Context, evaluate
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Snapshot
from penumbra.serve.demo.tasks import SLICES, make_tasks
from penumbra.serve.demo.traffic import streamed_text
from tests.e2e.test_hosting import replica
from tests.support.installation import Installation

REQUESTS = 2_000
FLIPS = 50
CLIENTS = 32
STREAM_TOKENS = 500
"""Long enough to be killed in the middle of on any machine."""
BEGUN = 8
"""Streams that are under way when the candidate is killed."""
BEGUN_CHARACTERS = 5_000
"""Of a stream's events, when it is under way: some twenty tokens."""
STREAMS = 100
Z = 5.0
"""Standard errors that a share may be off: one false alarm in some million."""


class Admin:
    """The admin API of the installation."""

    def __init__(self, stack: Installation) -> None:
        self._http = httpx.AsyncClient(
            base_url=stack.state.admin_url,
            headers={"authorization": f"Bearer {stack.admin_token}"},
            timeout=10,
        )

    async def change(self, what: str, **body: Any) -> int:
        """Change the flag; returns the epoch of the change."""
        body = {"reason": "test", **body}
        for _ in range(100):
            response = await self._http.post(f"/admin/v1/flags/demo/{what}", json=body)
            if response.status_code != 503:
                break
            # A process that comes back after a crash stands by until its own lease is out.
            await asyncio.sleep(0.2)
        assert response.status_code == 200, response.text
        return int(response.json()["epoch"])

    async def snapshot(self, epoch: int) -> Snapshot:
        response = await self._http.get(f"/admin/v1/snapshots/{epoch}")
        return Snapshot.model_validate_json(response.content)

    async def close(self) -> None:
        await self._http.aclose()


@dataclass(frozen=True)
class Answered:
    user: str
    status: int
    variant: str
    epoch: int


async def ask_short(http: httpx.AsyncClient, user: str, number: int) -> Answered:
    task = make_tasks(SLICES[number % len(SLICES)], 1, seed=number)[0]
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": task.prompt}],
        "max_tokens": 2,
        "temperature": 0,
    }
    headers = {"x-user-id": user}
    response = await http.post("/v1/chat/completions", json=body, headers=headers)
    assert "x-penumbra-failover" not in response.headers
    return Answered(
        user,
        response.status_code,
        response.headers["x-penumbra-variant"],
        int(response.headers["x-penumbra-epoch"]),
    )


def decided(snapshot: Snapshot, user: str) -> str:
    context = Context("demo", "anonymous", {}, user, "other", "id", RequestFeatures(dict))
    return evaluate(snapshot, context).variant


async def ask_all(stack: Installation, answers: list[Answered]) -> None:
    """Send all requests, `CLIENTS` at a time."""
    numbers = iter(range(REQUESTS))

    async def client(http: httpx.AsyncClient) -> None:
        while (number := next(numbers, None)) is not None:
            answers.append(await ask_short(http, f"user-{number}", number))

    async with (
        httpx.AsyncClient(base_url=stack.gateway_url, timeout=120) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CLIENTS):
            group.create_task(client(http))


async def flip_evenly(admin: Admin, answers: list[Answered]) -> None:
    """Change the flag `FLIPS` times, spread over the traffic."""
    for flip in range(FLIPS):
        for _ in range(30_000):
            if len(answers) >= flip * REQUESTS // FLIPS:
                break
            await asyncio.sleep(0.01)
        if flip % 5 == 3:
            await admin.change("kill")
        elif flip % 5 == 4:
            await admin.change("unkill")
        else:
            await admin.change("split", split={"int8": 30.0, "int4": float(flip % 3)})


async def test_flags_flip_under_traffic_and_every_answer_follows_its_epoch(
    stack: Installation,
) -> None:
    admin = Admin(stack)
    answers: list[Answered] = []
    await admin.change("split", split={"int8": 30.0})
    await asyncio.gather(ask_all(stack, answers), flip_evenly(admin, answers))
    assert len(answers) == REQUESTS
    assert {answer.status for answer in answers} == {200}
    snapshots = {
        epoch: await admin.snapshot(epoch) for epoch in {answer.epoch for answer in answers}
    }
    assert len(snapshots) > FLIPS / 2
    wrong = [
        answer
        for answer in answers
        if decided(snapshots[answer.epoch], answer.user) != answer.variant
    ]
    assert wrong == []
    live = [answer for answer in answers if not snapshots[answer.epoch].models["demo"].flag.killed]
    share = Counter(answer.variant for answer in live)["int8"] / len(live)
    assert abs(share - 0.3) < Z * math.sqrt(0.3 * 0.7 / len(live))
    await admin.change("split", split={})
    await admin.close()


async def stream_whole(
    http: httpx.AsyncClient, prompt: str, begun: asyncio.Semaphore | None = None
) -> tuple[str, str]:
    """The variant and the text of one chat stream; fails if it is not whole.

    Args:
        http: The gateway.
        prompt: The user's message.
        begun: Released when the answer's text has begun.
    """
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": STREAM_TOKENS,
        "min_tokens": STREAM_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    text = ""
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        try:
            async for piece in response.aiter_text():
                text += piece
                if begun is not None and len(text) > BEGUN_CHARACTERS:
                    begun.release()
                    begun = None
        except httpx.TransportError as error:
            raise AssertionError(f"broke off after {len(text)}: {text[-1500:]!r}") from error
    assert response.status_code == 200, text
    events = [part[6:] for part in text.split("\n\n") if part.startswith("data: {")]
    usage = [event["usage"] for event in map(json.loads, events) if event.get("usage")]
    reasons = [
        choice["finish_reason"]
        for event in map(json.loads, events)
        for choice in event["choices"]
        if choice.get("finish_reason")
    ]
    assert reasons == ["length"]
    assert len(usage) == 1
    return response.headers["x-penumbra-variant"], streamed_text(text)


async def test_no_client_notices_a_killed_candidate(
    stack: Installation, record_property: Any
) -> None:
    admin = Admin(stack)
    await admin.change("split", split={"int8": 100.0})
    victim = replica(stack, "int8")
    family = [victim, *victim.children(recursive=True)]
    limits = httpx.Limits(max_connections=STREAMS)
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=300, limits=limits) as http:
        prompts = [task.prompt for task in make_tasks("sort", STREAMS, seed=3)]
        begun = asyncio.Semaphore(0)
        streams = [asyncio.create_task(stream_whole(http, prompt, begun)) for prompt in prompts]
        async with asyncio.timeout(120):
            for _ in range(BEGUN):
                await begun.acquire()
        for process in family:
            process.kill()
        answers = await asyncio.gather(*streams)
        assert all(text for _, text in answers)
        died = await failovers(stack, 'from_variant="int8"')
        assert died > 0
        record_property("failovers", died)
        await wait_until_back(http, "int8")
    await admin.change("split", split={})
    await admin.close()


async def wait_until_back(http: httpx.AsyncClient, variant: str) -> None:
    """Until a killed variant answers again."""
    for _ in range(600):
        answered, _ = await stream_whole(http, "Sort: bab dad")
        if answered == variant:
            return
        await asyncio.sleep(0.5)
    pytest.fail(f"Ray did not bring {variant} back")


async def failovers(stack: Installation, label: str) -> float:
    """Failovers counted by all gateways."""
    total = 0.0
    urls = [process.url for process in stack.state.processes if process.name.startswith("gateway")]
    async with httpx.AsyncClient(timeout=10) as http:
        for url in urls:
            text = (await http.get(f"{url}/metrics")).text
            total += sum(
                float(line.split()[-1])
                for line in text.splitlines()
                if line.startswith("penumbra_failovers_total") and label in line
            )
    return total


async def test_a_killed_control_process_keeps_every_acknowledged_flag(stack: Installation) -> None:
    admin = Admin(stack)
    epoch = await admin.change("split", split={"int4": 12.5})
    before = stack.state.process("control")
    psutil.Process(before.pid).kill()
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=120) as http:
        while stack.state.process("control").pid == before.pid:
            answer = await ask_short(http, "user-1", 1)
            assert (answer.status, answer.epoch) == (200, epoch)
    for _ in range(200):
        try:
            snapshot = await admin.snapshot(epoch)
            break
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    else:
        pytest.fail("the control process did not come back")
    assert snapshot.models["demo"].flag.split == {"int4": 12.5}
    assert await admin.change("split", split={}) > epoch
    await admin.close()
