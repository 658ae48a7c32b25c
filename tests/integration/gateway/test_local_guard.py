"""The local guard: a gateway without control process takes a failing candidate out of service."""

from typing import Any

import pytest

from tests.integration.gateway.conftest import model
from tests.support.behaviours import full_response
from tests.support.gateway_process import GatewayProcess
from tests.support.requests import CHAT, chat
from tests.support.scripted_connection import Behaviour, Exchange
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    """A candidate with all of the traffic, watched."""
    watch = {"candidate": "int8", "run": "run-1"}
    return {"demo": model(full, int8, flag={"split": {"int8": 100}}, watches=[watch])}


def failing() -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.send(full_response(500, b'{"error": {"message": "broken"}}'))

    return behave


def test_a_failing_candidate_is_tried_only_a_few_times_and_no_client_notices(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    for _ in range(20):
        assert gateway.post(CHAT, chat()).header("x-penumbra-variant") == "int8"
    int8.always(failing())
    answers = [gateway.post(CHAT, chat()) for _ in range(60)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.header("x-penumbra-variant") for answer in answers} == {"full"}
    reasons = [answer.header("x-penumbra-reason") for answer in answers]
    first = reasons.index("GUARD")
    assert 1 <= first <= 10
    assert set(reasons[first:]) == {"GUARD"}
    # 20 that went well, and the few that showed what is wrong.
    assert len(int8.requests) == 20 + first
