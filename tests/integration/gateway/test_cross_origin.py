"""Answers to web pages: readable for the configured origins, and for no others."""

from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import engine, raw
from tests.support.gateway_process import GatewayProcess, key_settings
from tests.support.raw_client import RawResponse, request_bytes
from tests.support.requests import CHAT, chat, dumps
from tests.support.scripted_upstream import ScriptedUpstream

KEY = {"authorization": "Bearer acme-key"}
PAGE = {"origin": "https://chat.example:8443"}
OTHERS: tuple[dict[str, str], ...] = (
    {},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "https://chat.ex"},
)
OF_ENGINES = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("access-control-expose-headers", "x-secret"),
]
"""vLLM allows every origin by default."""


@pytest.fixture(scope="module")
def keys() -> list[dict[str, Any]]:
    return [key_settings("acme", "acme-key")]


@pytest.fixture(scope="module")
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "allowed_origins": ["http://localhost:3000", PAGE["origin"]]}


def ask(gateway: GatewayProcess, method: str, path: str, headers: dict[str, str]) -> RawResponse:
    body = dumps(chat()) if method == "POST" else b""
    with gateway.connect() as client:
        client.send(request_bytes(path, body, headers, method=method))
        return client.read_response()


def cross_origin(response: RawResponse) -> dict[str, str]:
    return {name: value for name, value in response.headers if name.startswith("access-control-")}


ANSWERS = {
    "whole": ("POST", CHAT, KEY, 200),
    "no_key": ("POST", CHAT, {}, 401),
    "wrong_method": ("GET", CHAT, KEY, 405),
    "models": ("GET", "/v1/models", KEY, 200),
    "models_without_key": ("GET", "/v1/models", {}, 401),
    "nothing": ("GET", "/nope", {}, 404),
}


@pytest.mark.parametrize(("method", "path", "key", "status"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answer_is_readable_for_an_allowed_page(
    gateway: GatewayProcess, method: str, path: str, key: dict[str, str], status: int
) -> None:
    response = ask(gateway, method, path, {**key, **PAGE})
    assert response.status == status
    assert response.header("access-control-allow-origin") == PAGE["origin"]
    assert "x-penumbra-variant" in (response.header("access-control-expose-headers") or "")
    assert response.header("access-control-allow-credentials") is None
    assert (response.header("vary") or "").lower() == "origin"


@pytest.mark.parametrize("origin", OTHERS)
@pytest.mark.parametrize(("method", "path", "key", "status"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answer_is_not_readable_for_other_pages(
    gateway: GatewayProcess,
    method: str,
    path: str,
    key: dict[str, str],
    status: int,
    origin: dict[str, str],
) -> None:
    response = ask(gateway, method, path, {**key, **origin})
    assert (response.status, cross_origin(response).get("access-control-allow-origin")) == (
        status,
        None,
    )


def test_engines_do_not_decide_who_may_read(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(engine(FULL, headers=OF_ENGINES))
    for stream in (False, True):
        response = gateway.post(CHAT, chat(stream=stream), {**KEY, **OTHERS[1]})
        assert (response.status, cross_origin(response)) == (200, {})
        response = gateway.post(CHAT, chat(stream=stream), {**KEY, **PAGE})
        assert response.header("access-control-allow-origin") == PAGE["origin"]


def test_errors_of_the_gateway_are_readable(
    gateway: GatewayProcess, full: ScriptedUpstream, int8: ScriptedUpstream
) -> None:
    for upstream in (full, int8):
        upstream.always(raw(b"", then="fin"))
    response = gateway.post(CHAT, chat(), {**KEY, **PAGE})
    assert response.status >= 500
    assert response.header("access-control-allow-origin") == PAGE["origin"]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/models", "/v1/feedback"])
def test_preflight_of_an_allowed_page_is_answered_without_a_key(
    gateway: GatewayProcess, full: ScriptedUpstream, path: str
) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }
    response = ask(gateway, "OPTIONS", path, {**PAGE, **asked})
    assert response.status in (200, 204)
    allowed = cross_origin(response)
    assert allowed["access-control-allow-origin"] == PAGE["origin"]
    assert "POST" in allowed["access-control-allow-methods"]
    for name in asked["access-control-request-headers"].split(","):
        assert name in allowed["access-control-allow-headers"].lower()
    assert full.requests == []


@pytest.mark.parametrize("origin", OTHERS[1:])
def test_preflight_of_another_page_is_refused(
    gateway: GatewayProcess, origin: dict[str, str]
) -> None:
    asked = {"access-control-request-method": "POST"}
    response = ask(gateway, "OPTIONS", CHAT, {**origin, **asked})
    assert response.header("access-control-allow-origin") is None
