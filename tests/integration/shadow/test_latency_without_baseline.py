"""A candidate that answers all clients and gets slow, through real processes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.integration.shadow.test_released_routes import Plane, plane
from tests.support.behaviours import engine
from tests.support.control_process import OPERATOR
from tests.support.engine_probe import probed
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT
from tests.support.scripted_connection import Exchange
from tests.support.scripted_upstream import ScriptedUpstream

PAIRS = 20
BLOCK = 100
"""Pairs from which a floor is read, at a tolerance of .5."""
AT_ONCE = 8
SPEC: dict[str, Any] = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 100],
    "gates": {"pairs": BLOCK + 10, "slice_pairs": PAIRS, "stage_seconds": 0, "horizon": 5000},
    "mirror": {"generate": 1, "aa": 0},
    "guardrails": [
        {"signal": "displacement", "tolerance": 0.4, "action": "rollback", "share": 0.4},
        {"signal": "harm", "tolerance": 0.2, "action": "rollback", "share": 0.4},
        {
            "signal": "ttft",
            "tolerance": 0.5,
            "factor": 1.1,
            "action": "rollback",
            "share": 0.2,
        },
    ],
}


class Timed:
    """An engine whose answers take a while."""

    def __init__(self) -> None:
        self.seconds = 0.02
        self._engine = engine(Engine("same"))

    async def __call__(self, exchange: Exchange) -> None:
        is_answer = b"prompt_logprobs" not in exchange.request.body
        if exchange.request.method == "POST" and is_answer:
            await asyncio.sleep(self.seconds)
        await self._engine(exchange)


async def ask(running: Plane) -> list[str | None]:
    """Ask some chats at once: the variants that answered."""
    asked = (asyncio.to_thread(running.ask, CHAT) for _ in range(AT_ONCE))
    return [variant for variant, _ in await asyncio.gather(*asked)]


async def ask_until(running: Plane, stage: str) -> dict[str, Any]:
    for _ in range(100):
        await ask(running)
        view: dict[str, Any] = await asyncio.to_thread(running.view)
        if view["stage"] == stage:
            return view
    raise AssertionError(f"never {stage}: {view}")


def forget(gateway: GatewayProcess) -> None:
    """Start a gateway again: the baseline's last answers are not minutes ago, but unknown."""
    gateway.stop()
    gateway.start()
    eventually(lambda: "comparator_connected" in gateway.log_text())


def ttft_of(view: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in view["signals"] if each["signal"] == "ttft")
    return found


@pytest.mark.timeout(300)
async def test_a_candidate_that_gets_slow_while_it_answers_every_client_is_rolled_back(
    tmp_path: Path,
) -> None:
    timed = {name: Timed() for name in ("full", "int8")}
    builds = {name: ScriptedUpstream(name, behave) for name, behave in timed.items()}
    for upstream in builds.values():
        upstream.start()
        probed(upstream)
    try:
        async with plane(tmp_path, builds) as running:
            headers = {"authorization": f"Bearer {OPERATOR}"}
            body = {"spec": SPEC, "reason": "try"}
            answer = running.control.client.put("/rollouts", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            await ask_until(running, "promoted")
            await asyncio.to_thread(forget, running.gateway)
            timed["int8"].seconds = 2.0
            view = await ask_until(running, "rolled_back")
    finally:
        for upstream in builds.values():
            upstream.stop()
    assert view["cause"].startswith("ttft: ")
    ttft = ttft_of(view)
    assert ttft["beside_shadow"]["other"] > 0
    (floor,) = (each for each in ttft["floors"] if each["time"] == "whole")
    assert floor["latest"] > 0
