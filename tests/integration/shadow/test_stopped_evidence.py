"""A live candidate of which no evidence comes any more, through real processes."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from penumbra.router.mirror.evidence_flow import GRACE_SECONDS
from tests.integration.shadow.test_released_routes import Plane, begin, plane
from tests.support.behaviours import respond
from tests.support.control_process import GATEWAY, external
from tests.support.engine_probe import probed
from tests.support.gateway_process import GatewayProcess
from tests.support.requests import CHAT
from tests.support.scripted_upstream import ScriptedUpstream

SCORES = "/v1/completions"
LONGEST_SECONDS = 120.0
"""Requests that wait in the comparator grow old for half a minute before new ones are compared."""

Answered = tuple[str | None, str | None]


async def ask_until(running: Plane, is_it: Callable[[Answered], bool]) -> float:
    """Ask until an answer is as wanted; returns the seconds until then."""
    began = time.monotonic()
    while time.monotonic() - began < LONGEST_SECONDS:
        answered = await asyncio.to_thread(running.ask, CHAT)
        if is_it(answered):
            return time.monotonic() - began
        await asyncio.sleep(0.02)  # a flood would use up the comparator's budget
    raise AssertionError(f"last {answered}; {running.view()}")


async def test_a_comparator_that_compares_nothing_ends_the_lease(
    tmp_path: Path, builds: dict[str, ScriptedUpstream]
) -> None:
    async with plane(tmp_path, builds) as running:
        await asyncio.to_thread(begin, running)
        await ask_until(running, lambda answered: answered[0] == "int8")
        for build in builds.values():
            build.on(SCORES, respond(503, b"{}"))  # neither build scores: nothing is compared
        seconds = await ask_until(running, lambda answered: answered == ("full", "LEASE_EXPIRED"))
        assert seconds >= GRACE_SECONDS
        await asyncio.to_thread(running.ask, CHAT)
        assert (await asyncio.to_thread(running.view))["stage"] != "rolled_back"
        for build in builds.values():
            probed(build)
        await ask_until(running, lambda answered: answered[0] == "int8")


async def test_a_gateway_without_its_comparator_has_no_lease_and_the_others_have(
    tmp_path: Path, builds: dict[str, ScriptedUpstream]
) -> None:
    async with plane(tmp_path, builds) as running:
        await asyncio.to_thread(begin, running)
        await ask_until(running, lambda answered: answered[0] == "int8")
        urls = {name: build.url for name, build in builds.items()}
        settings = {
            "gateway_id": "gateway-9",
            "control_url": running.control.url,
            "snapshot": {"epoch": 0, "models": {"demo": external(**urls)}},
            "shadow_socket": str(tmp_path / "absent.sock"),
        }
        folder = tmp_path / "alone"
        folder.mkdir()
        alone = GatewayProcess(settings, folder, {"PENUMBRA_GATEWAY_TOKEN": GATEWAY})
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, alone)
            blind = Plane(running.control, alone)
            await ask_until(blind, lambda answered: answered[0] == "int8")
            await ask_until(blind, lambda answered: answered == ("full", "LEASE_EXPIRED"))
            assert (await asyncio.to_thread(running.ask, CHAT))[0] == "int8"
