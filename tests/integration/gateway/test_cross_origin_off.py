"""Without allowed origins no web page may read an answer, whatever the engines say."""

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import engine
from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

PAGE = {"origin": "https://chat.example"}


@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/v1/models")])
def test_no_answer_is_readable_for_a_page(
    gateway: GatewayProcess, full: ScriptedUpstream, method: str, path: str
) -> None:
    full.always(engine(FULL, headers=[("access-control-allow-origin", "*"), ("vary", "origin")]))
    with gateway.connect() as client:
        client.send(request_bytes(path, dumps(chat()), PAGE, method=method))
        response = client.read_response()
    assert response.status == 200
    assert response.header("access-control-allow-origin") is None


def test_preflight_is_no_route(gateway: GatewayProcess) -> None:
    headers = {**PAGE, "access-control-request-method": "POST"}
    with gateway.connect() as client:
        client.send(request_bytes(CHAT, method="OPTIONS", headers=headers))
        response = client.read_response()
    assert (response.status, response.header("access-control-allow-origin")) == (405, None)
