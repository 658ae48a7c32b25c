"""Compares the demo's builds: asks all the same tasks and counts the right answers.

The builds are asked past the gateway, which no longer serves the one that was rolled back.
"""

import asyncio
import time
from collections import Counter

import httpx

from penumbra.serve.demo.commands import DemoFailed, Operator
from penumbra.serve.demo.prepare import VARIANTS
from penumbra.serve.demo.tasks import SLICES, make_tasks
from penumbra.serve.demo.traffic import ask, client

TASKS_PER_SLICE = 12
_CLIENTS = 6
_BACK_SECONDS = 180.0


async def compare_builds(operator: Operator) -> list[str]:
    """Ask every build the same held-out tasks; returns its part of the summary."""
    operator.say("Every build is asked the same held-out tasks: what the guard could not see.")
    right: Counter[tuple[str, str]] = Counter()
    limit = asyncio.Semaphore(_CLIENTS)

    async def ask_once(http: httpx.AsyncClient, variant: str, slice_name: str, number: int) -> None:
        task = make_tasks(slice_name, TASKS_PER_SLICE, seed=1)[number]
        async with limit:
            reply = await ask(http, task, {}, is_stream=number % 2 == 0)
        if reply.error:
            raise DemoFailed(f"{variant}: {reply.error}")
        right[slice_name, variant] += reply.is_right

    for variant in VARIANTS:
        async with client(operator.build_url(variant)) as http, asyncio.TaskGroup() as group:
            for slice_name in SLICES:
                for number in range(TASKS_PER_SLICE):
                    group.create_task(ask_once(http, variant, slice_name, number))
    header = f"| slice | {' | '.join(VARIANTS)} |"
    rows = [
        f"| {name} | " + " | ".join(f"{right[name, v]}/{TASKS_PER_SLICE}" for v in VARIANTS) + " |"
        for name in SLICES
    ]
    return [
        f"## The same {TASKS_PER_SLICE} held-out tasks for each slice and build: right",
        "",
        header,
        "|---" * (len(VARIANTS) + 1) + "|",
        *rows,
    ]


async def wait_for(operator: Operator, variant: str) -> None:
    """Wait until a variant answers for itself again; a killed replica takes a while.

    Raises:
        DemoFailed: It does not come back.
    """
    task = make_tasks("sort", 1, seed=2)[0]
    deadline = time.monotonic() + _BACK_SECONDS
    async with client(operator.url) as http:
        while time.monotonic() < deadline:
            reply = await ask(http, task, {"x-penumbra-variant": variant}, is_stream=False)
            if reply.variant == variant:
                return
            await asyncio.sleep(0.5)
    raise DemoFailed(f"{variant} did not come back")
