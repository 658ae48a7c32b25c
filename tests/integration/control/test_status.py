"""The control process tells within seconds what clients of all gateways get."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.behaviours import engine, respond
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine, engine_error
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

SEEN_SECONDS = 10.0


class Installation:
    """A control process, two gateways and a baseline that can be told to fail."""

    def __init__(
        self, full: ScriptedUpstream, control: ControlProcess, gateways: list[GatewayProcess]
    ) -> None:
        self.full = full
        self.control = control
        self.gateways = gateways

    def ask(self, times: int) -> None:
        for gateway in self.gateways:
            for _ in range(times):
                gateway.post(CHAT, chat())

    def await_answers(self, count: int) -> dict[str, Any]:
        """The model's part of the status, once it counts so many answers."""

        def found() -> dict[str, Any]:
            models = self.control.get("/status")["models"]
            part: dict[str, Any] = models[0] if models else {"answers": 0}
            return part

        eventually(
            lambda: found()["answers"] == count,
            timeout=SEEN_SECONDS,
            what=f"{count} answers",
            found=found,
        )
        return found()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    full = ScriptedUpstream("full", engine(Engine("full")))
    full.start()
    model = external(full=full.url)
    with ExitStack() as stack:
        stack.callback(full.stop)
        control = stack.enter_context(ControlProcess(tmp_path, {"demo": model}))
        settings = {
            "control_url": control.url,
            "snapshot": {"epoch": 0, "models": {"demo": model}},
        }
        gateways = [
            stack.enter_context(
                GatewayProcess(
                    {**settings, "gateway_id": f"gateway-{number}"},
                    tmp_path,
                    {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
                )
            )
            for number in range(2)
        ]
        yield Installation(full, control, gateways)


def test_the_status_tells_what_clients_of_all_gateways_get(installation: Installation) -> None:
    control = installation.control
    installation.ask(6)
    part = installation.await_answers(12)
    assert (part["failed"], control.get("/status")["health"]) == (0, "healthy")
    installation.full.always(respond(500, engine_error("no", 500)))
    installation.ask(4)
    part = installation.await_answers(20)
    assert (part["failed"], part["failed_ratio"]) == (8, 0.4)
    status = control.get("/status")
    assert (status["health"], status["problems"]) == (
        "degraded",
        ["40 % of demo's answers failed in the last minute (5xx of full)"],
    )


def test_a_gateway_that_connects_again_tells_of_its_minute_again(
    installation: Installation,
) -> None:
    installation.full.always(respond(401, engine_error("no", 401)))
    installation.ask(3)
    assert installation.await_answers(6)["refused"] == 6
    installation.control.kill()
    installation.control.start()
    assert installation.await_answers(6)["refused"] == 6
    assert installation.control.get("/status")["problems"] == [
        "100 % of demo's answers were refusals in the last minute (401 of full)"
    ]
