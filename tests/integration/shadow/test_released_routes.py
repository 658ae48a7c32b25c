"""A rollout whose traffic is half `/v1/responses`, through real processes: what goes live, when.

Chats alone prove nothing for responses: these stay on the baseline until enough of them were
compared, and a candidate that is damaged by responses alone is rolled back.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.alike_builds import QUICK_PAIRS, QUICK_SPEC
from tests.support.behaviours import respond
from tests.support.comparator_process import comparator
from tests.support.control_process import GATEWAY, OPERATOR, ControlProcess, external
from tests.support.engine_wire import encode
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

RESPONSES = "/v1/responses"
LONGEST_SECONDS = 60.0
SAYS_NOTHING = {
    "id": "resp_int8",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": ""}]}],
    "usage": {"output_tokens": 1},
}


@dataclass
class Plane:
    """A control process, a comparator and a gateway before two scripted builds."""

    control: ControlProcess
    gateway: GatewayProcess
    _numbers: Any = field(default_factory=itertools.count)

    def ask(self, path: str) -> tuple[str | None, str | None]:
        """Ask something new by a route: the variant that answered, and why."""
        text = f"question {next(self._numbers)}"
        body = {"model": "demo", "input": text}
        if path == CHAT:
            body = chat(messages=[{"role": "user", "content": text}])
        response = self.gateway.post(path, body)
        assert response.status == 200
        return response.header("x-penumbra-variant"), response.header("x-penumbra-reason")

    def view(self) -> Any:
        headers = {"authorization": f"Bearer {OPERATOR}"}
        answer = self.control.client.get(
            "/rollouts/int8", params={"model": "demo"}, headers=headers
        )
        return answer.json()

    def channel(self, name: str) -> Any:
        found = [each for each in self.view()["channels"] if each["channel"] == name]
        return found[0] if found else None

    def ask_until(self, paths: tuple[str, ...], path: str, variant: str) -> None:
        """Ask by these routes in turn until one of them is answered by a variant."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < deadline:
            answered = {asked: self.ask(asked)[0] for asked in paths}
            if answered[path] == variant:
                return
        raise AssertionError(f"{path} never came to {variant}: {self.view()}")


@contextlib.asynccontextmanager
async def plane(folder: Path, builds: dict[str, ScriptedUpstream]) -> AsyncIterator[Plane]:
    models = {"demo": external(**{name: build.url for name, build in builds.items()})}
    with contextlib.ExitStack() as stack:
        control = ControlProcess(folder, models)
        await asyncio.to_thread(stack.enter_context, control)
        async with comparator(folder, control.url, token=GATEWAY) as compared:
            settings = {
                "control_url": control.url,
                "snapshot": {"epoch": 0, "models": models},
                "shadow_socket": str(compared.socket_path),
            }
            gateway = GatewayProcess(settings, folder, {"PENUMBRA_GATEWAY_TOKEN": GATEWAY})
            await asyncio.to_thread(stack.enter_context, gateway)
            await asyncio.to_thread(
                eventually, lambda: "comparator_connected" in gateway.log_text()
            )
            yield Plane(control, gateway)


def begin(running: Plane) -> None:
    headers = {"authorization": f"Bearer {OPERATOR}"}
    body = {"spec": QUICK_SPEC, "reason": "try"}
    answer = running.control.client.put("/rollouts", json=body, headers=headers)
    assert answer.status_code == 200, answer.text


async def test_responses_go_live_once_they_were_compared_and_not_before(
    tmp_path: Path, builds: dict[str, ScriptedUpstream]
) -> None:
    async with plane(tmp_path, builds) as running:
        await asyncio.to_thread(begin, running)
        # Before: chats alone bring the rollout live; responses were never compared.
        await asyncio.to_thread(running.ask_until, (CHAT,), CHAT, "int8")
        assert await asyncio.to_thread(running.ask, RESPONSES) == ("full", "UNCOMPARED")
        await asyncio.to_thread(eventually, lambda: running.channel("responses") is not None)
        waiting = await asyncio.to_thread(running.channel, "responses")
        assert (waiting["is_released"], waiting["why"]) == (False, f"1 of {QUICK_PAIRS} pairs")
        assert waiting["signals"] == ["displacement", "harm"]
        # After: half of the traffic is responses.
        await asyncio.to_thread(running.ask_until, (CHAT, RESPONSES), RESPONSES, "int8")
        view = await asyncio.to_thread(running.view)
        assert {each["channel"]: each["is_released"] for each in view["channels"]} == {
            "chat": True,
            "responses": True,
        }
        compared = {each["channel"]: each["pairs"] for each in view["channels"]}
        assert compared["responses"] >= QUICK_PAIRS


async def test_a_candidate_that_is_damaged_by_responses_alone_is_rolled_back(
    tmp_path: Path, builds: dict[str, ScriptedUpstream]
) -> None:
    builds["int8"].on(RESPONSES, respond(200, encode(SAYS_NOTHING)))
    async with plane(tmp_path, builds) as running:
        await asyncio.to_thread(begin, running)
        answered_by = set()
        deadline = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < deadline:
            answered_by.add((await asyncio.to_thread(running.ask, RESPONSES))[0])
            await asyncio.to_thread(running.ask, CHAT)
            if (await asyncio.to_thread(running.view))["stage"] == "rolled_back":
                break
        view = await asyncio.to_thread(running.view)
        assert (view["stage"], view["verdict"]) == ("rolled_back", "fail")
        assert view["cause"].startswith("harm: ")
        # No client got a damaged response on the way.
        assert answered_by == {"full"}
