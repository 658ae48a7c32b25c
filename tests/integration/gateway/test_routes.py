"""Routes of both ports: the model list, health and metrics; every other path is refused."""

import json

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import RawClient, request_bytes
from tests.support.requests import HOT_ROUTES, chat
from tests.support.scripted_upstream import ScriptedUpstream


def test_health_answers_while_the_process_lives(gateway: GatewayProcess) -> None:
    assert gateway.get("/health").status == 200


def test_ready_answers_with_a_routing_table(gateway: GatewayProcess) -> None:
    assert gateway.get("/ready").status == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_internal_port_serves_its_own_process(gateway: GatewayProcess, path: str) -> None:
    assert gateway.get(path, is_internal=True).status == 200


def test_internal_port_shows_the_routing_table_in_force(gateway: GatewayProcess) -> None:
    shown = gateway.get("/debug/snapshot", is_internal=True).json()
    assert (shown["epoch"], set(shown["models"])) == (7, {"demo", "demo-candidate"})


@pytest.mark.parametrize("path", HOT_ROUTES)
def test_internal_port_serves_no_model(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str
) -> None:
    with RawClient(gateway.internal_port) as client:
        client.send_request(path, json.dumps(chat()).encode())
        assert client.read_response().status in (404, 405)
    assert full.requests == []


def test_models_lists_the_public_names(gateway: GatewayProcess) -> None:
    listed = gateway.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {card["id"] for card in listed["data"]} == {"demo", "demo-candidate"}


def test_models_lists_openai_model_cards(gateway: GatewayProcess) -> None:
    for card in gateway.get("/v1/models").json()["data"]:
        assert card["object"] == "model"
        assert isinstance(card["created"], int)
        assert isinstance(card["owned_by"], str)


def test_model_card_answers_for_one_name(gateway: GatewayProcess) -> None:
    response = gateway.get("/v1/models/demo")
    assert (response.status, response.json()["id"]) == (200, "demo")


def test_model_card_refuses_an_unknown_name(gateway: GatewayProcess) -> None:
    response = gateway.get("/v1/models/unknown")
    assert (response.status, response.error["code"]) == (404, "model_not_found")


def test_metrics_are_all_named_penumbra(gateway: GatewayProcess) -> None:
    response = gateway.get("/metrics")
    assert (response.header("content-type") or "").startswith("text/plain")
    names = [line.split()[2] for line in response.body.decode().splitlines() if "# TYPE" in line]
    assert names
    assert [name for name in names if not name.startswith(("penumbra_", "process_"))] == []


def test_metrics_end_in_total_only_where_they_count(gateway: GatewayProcess) -> None:
    lines = gateway.get("/metrics").body.decode().splitlines()
    kinds = {line.split()[2]: line.split()[3] for line in lines if "# TYPE" in line}
    for name, kind in kinds.items():
        assert name.endswith("_total") == (kind == "counter"), name


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v2/chat/completions", "/v1/chat/completions//", "/V1/CHAT/COMPLETIONS", "/..",
     "/v1/chat/completions/../../metrics", "//v1/chat/completions", "/docs", "/openapi.json"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_path_is_404_in_openai_form(
    gateway: GatewayProcess, full: ScriptedUpstream, method: str, path: str
) -> None:
    with gateway.connect() as client:
        client.send(request_bytes(path, json.dumps(chat()).encode(), method=method))
        response = client.read_response()
    assert (response.status, response.error["type"]) == (404, "invalid_request_error")
    assert full.requests == []


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", HOT_ROUTES)
def test_wrong_method_of_a_hot_route_is_405(
    gateway: GatewayProcess, full: ScriptedUpstream, method: str, path: str
) -> None:
    with gateway.connect() as client:
        client.send(request_bytes(path, json.dumps(chat()).encode(), method=method))
        response = client.read_response()
    assert (response.status, response.error["code"]) == (405, "method_not_allowed")
    assert response.header("allow") == "POST"
    assert full.requests == []


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/demo", "/health", "/ready", "/metrics"])
def test_wrong_method_of_a_get_route_is_405(gateway: GatewayProcess, path: str) -> None:
    response = gateway.post(path, {})
    assert (response.status, response.error["code"]) == (405, "method_not_allowed")
    assert "GET" in (response.header("allow") or "")


@pytest.mark.parametrize("path", ["/nope", "/v1/models", "/health"])
def test_body_of_another_route_is_never_the_next_request(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str
) -> None:
    smuggled = request_bytes("/v1/chat/completions", json.dumps(chat()).encode())
    with gateway.connect() as client:
        client.send(request_bytes(path, smuggled, {"connection": "close"}))
        assert len(client.read_responses_to_eof()) == 1
    assert full.requests == []


def test_head_of_health_has_no_body(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(request_bytes("/health", method="HEAD", headers={"connection": "close"}))
        response = client.read_response(has_body=False)
        assert response.status in (200, 405)
        assert client.is_closed()
