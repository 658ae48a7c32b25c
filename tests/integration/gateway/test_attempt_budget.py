"""One request reaches two builds at most; a lack of connections is no build's fault."""

import contextlib
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL, INT8
from tests.support.behaviours import close_before_head, engine
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

MODELS = ["demo", "demo-candidate"]
CONNECTIONS = 4
ATTEMPTS = "penumbra_upstream_attempts_total"


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"upstream_connections": CONNECTIONS}


@pytest.fixture(autouse=True)
def _warm(gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream) -> None:
    """Fill both pools."""
    for model, upstream, build in (("demo", full, FULL), ("demo-candidate", int8, INT8)):
        upstream.always(engine(build, gate=(gate := upstream.gate())))
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(gateway.connect()) for _ in range(CONNECTIONS)]
            for client in clients:
                client.send_request(CHAT, dumps(chat(model=model)))
            upstream.wait_for_requests(CONNECTIONS)
            gate.open()
            for client in clients:
                assert client.read_response().status == 200
        upstream.reset()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_request_that_kills_its_engines_is_given_up(
    gateway: GatewayProcess,
    full: ScriptedUpstream,
    int8: ScriptedUpstream,
    model: str,
    end: Any,
    is_stream: bool,
) -> None:
    full.always(close_before_head(end))
    int8.always(close_before_head(end))
    response = gateway.post(CHAT, chat(model=model, stream=is_stream))
    assert response.status in (502, 503)
    # A pool may repeat once what a kept connection lost; the baseline is asked once afterwards.
    assert len(full.requests) == (2 if model == "demo" else 1)
    assert len(int8.requests) <= 2


@pytest.mark.parametrize("end", ["fin", "rst"])
def test_a_request_that_kills_the_candidate_is_answered_by_the_baseline(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, end: Any
) -> None:
    int8.always(close_before_head(end))
    assert gateway.post(CHAT, chat(model="demo-candidate")).status == 200
    assert len(int8.requests) in (1, 2)
    assert len(full.requests) == 1


@pytest.mark.parametrize("model", MODELS)
def test_pooled_connections_that_their_server_closed_cost_nothing(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream, model: str
) -> None:
    with counting(gateway, ATTEMPTS, by=0, outcome="refused"):
        for _ in range(5):
            full.close_connections()
            int8.close_connections()
            assert gateway.post(CHAT, chat(model=model)).status == 200
    assert len(full.requests) + len(int8.requests) == 5


def test_a_limit_of_connections_is_not_the_candidates_fault(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    gate = int8.gate()
    int8.always(engine(INT8, gate=gate))
    body = chat(model="demo-candidate")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in range(CONNECTIONS)]
        for client in clients:
            client.send_request(CHAT, dumps(body))
        int8.wait_for_requests(CONNECTIONS)
        with (
            counting(gateway, ATTEMPTS, by=1, variant="int8", outcome="gateway_limit"),
            counting(gateway, ATTEMPTS, by=0, variant="int8", outcome="refused"),
        ):
            assert gateway.post(CHAT, body).header("x-penumbra-variant") == "full"
        gate.open()
        assert [client.read_response().status for client in clients] == [200] * CONNECTIONS
