"""A stored response and the request that goes on from it, through two gateway processes."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.behaviours import engine
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.raw_client import RawResponse
from tests.support.requests import RESPONSES
from tests.support.scripted_upstream import ScriptedUpstream

CONVERSATIONS = 8


@pytest.fixture(scope="module")
def builds() -> Iterator[dict[str, ScriptedUpstream]]:
    found = {name: ScriptedUpstream(name, engine(Engine(name))) for name in ("full", "int8")}
    for build in found.values():
        build.start()
    yield found
    for build in found.values():
        build.stop()


@pytest.fixture(scope="module")
def gateways(
    builds: dict[str, ScriptedUpstream], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[GatewayProcess]]:
    urls = {name: build.url for name, build in builds.items()}
    models = {"demo": external(**urls) | {"flag": {"split": {"int8": 50}}}}
    with ControlProcess(tmp_path_factory.mktemp("control"), models) as control:
        settings = {"snapshot": {"epoch": 0, "models": {}}, "control_url": control.url}
        processes = [
            GatewayProcess(
                {**settings, "gateway_id": f"gateway-{number}"},
                tmp_path_factory.mktemp(f"gateway-{number}"),
                {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
            )
            for number in range(2)
        ]
        try:
            for process in processes:
                process.start()
            eventually(
                lambda: len(control.get("/gateways")["gateways"]) == len(processes),
                what="the gateways to be connected",
            )
            yield processes
        finally:
            for process in processes:
                process.stop()


def asked(gateway: GatewayProcess, text: str, **more: Any) -> RawResponse:
    response = gateway.post(RESPONSES, {"model": "demo", "input": text, **more})
    assert response.status == 200
    return response


def test_a_follow_up_finds_its_build_through_another_gateway_process(
    gateways: list[GatewayProcess],
) -> None:
    found = set()
    for number in range(CONVERSATIONS):
        response = asked(gateways[0], f"question {number}")
        variant = response.header("x-penumbra-variant")
        found.add(variant)
        for turn, gateway in zip(range(4), itertools.cycle(reversed(gateways)), strict=False):
            previous = response.json()["id"]
            response = asked(gateway, f"and {turn}?", previous_response_id=previous)
            assert response.header("x-penumbra-variant") == variant
    assert found == {"full", "int8"}


def test_a_response_that_no_process_knows_costs_no_answer(gateways: list[GatewayProcess]) -> None:
    for gateway in gateways:
        asked(gateway, "and?", previous_response_id="resp_of_another_installation")


def test_a_client_that_leaves_while_its_build_is_asked_for_leaves_nothing_behind(
    gateways: list[GatewayProcess],
) -> None:
    body = b'{"model":"demo","input":"and?","previous_response_id":"resp_gone_%d"}'
    for number in range(50):
        with gateways[0].connect() as client:
            client.send_request(RESPONSES, body % number)
    asked(gateways[0], "still there?")
    eventually(lambda: gateways[0].metric("penumbra_requests_in_flight") == 0)
