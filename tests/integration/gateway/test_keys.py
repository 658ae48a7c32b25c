"""API keys: access, limits of tenants, and the right to choose a variant."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL
from tests.support.behaviours import engine, hang
from tests.support.gateway_process import GatewayProcess, eventually, key_settings
from tests.support.raw_client import RawClient, RawResponse
from tests.support.requests import CHAT, HOT_ROUTES, chat, dumps, request_for
from tests.support.scripted_upstream import ScriptedUpstream

BURST = 10
"""A sixth of sixty a minute."""


@pytest.fixture(scope="module")
def keys() -> list[dict[str, Any]]:
    return [
        key_settings("acme", "acme-key", may_pin=True),
        key_settings("plain", "plain-key"),
        key_settings("single", "single-key", limits={"concurrency": 1}),
        key_settings("single", "single-other-key", limits={"concurrency": 1}),
        key_settings("minute", "minute-key", limits={"requests_per_minute": BURST * 6}),
        key_settings("slow", "slow-key", limits={"requests_per_minute": 1}),
    ]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


UNKNOWN = {
    "none": {},
    "empty": {"authorization": ""},
    "unknown": bearer("unknown-key"),
    "prefix": bearer("acme-ke"),
    "longer": bearer("acme-keyx"),
    "capitals": bearer("ACME-KEY"),
    "bearer_only": {"authorization": "Bearer"},
    "no_scheme": {"authorization": "acme-key"},
    "basic": {"authorization": "Basic YWNtZS1rZXk6"},
    "two": {"authorization": "Bearer acme-key, Bearer plain-key"},
    "eight_bit": {"authorization": "Bearer \xe9\xff"},
    "long": bearer("k" * 8000),
    "query": {"x-api-key": "acme-key"},
}


@pytest.mark.parametrize("headers", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_request_without_a_known_key_is_refused(
    gateway: GatewayProcess, full: ScriptedUpstream, headers: dict[str, str]
) -> None:
    response = gateway.post(CHAT, chat(), headers)
    assert (response.status, response.error["code"]) == (401, "invalid_api_key")
    assert response.error["type"] == "authentication_error"
    assert full.requests == []


@pytest.mark.parametrize("path", HOT_ROUTES)
def test_every_hot_route_wants_a_key(gateway: GatewayProcess, path: str) -> None:
    assert gateway.post(path, request_for(path)).status == 401
    assert gateway.post(path, request_for(path), bearer("acme-key")).status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/demo"])
def test_model_list_wants_a_key(gateway: GatewayProcess, path: str) -> None:
    assert gateway.get(path).error["code"] == "invalid_api_key"
    assert gateway.get(path, bearer("acme-key")).status == 200


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_wants_no_key(gateway: GatewayProcess, path: str) -> None:
    assert gateway.get(path).status == 200


def test_ready_names_models_and_variants_to_callers_with_a_key_only(
    gateway: GatewayProcess,
) -> None:
    assert "problems" not in gateway.get("/ready").json()
    assert "problems" not in gateway.get("/ready", bearer("unknown-key")).json()
    assert "problems" in gateway.get("/ready", bearer("acme-key")).json()
    assert "problems" in gateway.get("/ready", is_internal=True).json()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_is_read_in_any_case(gateway: GatewayProcess, scheme: str) -> None:
    assert gateway.post(CHAT, chat(), {"authorization": f"{scheme} acme-key"}).status == 200


def test_two_authorization_headers_are_refused(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer unknown-key\r\n"
        "authorization: Bearer acme-key\r\n"
    )
    body = dumps(chat())
    with gateway.connect() as client:
        client.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert client.read_response().status in (400, 401)
    assert full.requests == []


def test_refusal_comes_before_the_body_is_read(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".encode())
        assert client.read_response().status == 401


def test_refusal_comes_before_100_continue(gateway: GatewayProcess) -> None:
    with gateway.connect() as client:
        client.send(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            "content-length: 1000\r\n\r\n".encode()
        )
        response = client.read_response()
        assert (response.status, response.interim) == (401, [])


def test_refusal_does_not_show_the_key(gateway: GatewayProcess) -> None:
    response = gateway.post(CHAT, chat(), bearer("my-wrong-key"))
    assert b"my-wrong-key" not in response.body


def test_key_does_not_reach_the_engine(gateway: GatewayProcess, full: ScriptedUpstream) -> None:
    gateway.post(CHAT, chat(), bearer("acme-key"))
    assert b"acme-key" not in full.wait_for_request().head


@pytest.mark.parametrize(("key", "status"), [("acme-key", 200), ("plain-key", 403)])
def test_pin_needs_a_key_that_may(gateway: GatewayProcess, key: str, status: int) -> None:
    response = gateway.post(CHAT, chat(), {**bearer(key), "x-penumbra-variant": "int8"})
    assert response.status == status
    if status == 403:
        assert response.error["code"] == "pin_not_allowed"
        assert response.error["type"] == "permission_error"


def test_pin_to_the_baseline_needs_a_key_that_may_as_well(gateway: GatewayProcess) -> None:
    response = gateway.post(CHAT, chat(), {**bearer("plain-key"), "x-penumbra-variant": "full"})
    assert response.error["code"] == "pin_not_allowed"


def assert_limited(response: RawResponse) -> int:
    assert (response.status, response.error["code"]) == (429, "rate_limit_exceeded")
    assert response.error["type"] == "rate_limit_error"
    seconds = int(response.header("retry-after") or "")
    assert seconds >= 1
    return seconds


@pytest.fixture
def waiting_request(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> Iterator[tuple[RawClient, Any]]:
    """A request of the tenant `single` that waits at a gate."""
    gate = full.gate()
    full.next(engine(FULL, gate=gate))
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()), bearer("single-key"))
        assert gate.reached.wait(30)
        yield client, gate
        gate.open()
    eventually(lambda: gateway.post(CHAT, chat(), bearer("single-key")).status == 200)


@pytest.mark.parametrize("key", ["single-key", "single-other-key"])
def test_tenant_over_its_concurrency_is_refused(
    gateway: GatewayProcess, waiting_request: tuple[RawClient, Any], key: str
) -> None:
    assert_limited(gateway.post(CHAT, chat(), bearer(key)))


def test_tenant_over_its_concurrency_does_not_touch_others(
    gateway: GatewayProcess, waiting_request: tuple[RawClient, Any]
) -> None:
    assert gateway.post(CHAT, chat(), bearer("acme-key")).status == 200


def test_place_is_free_again_after_the_answer(
    gateway: GatewayProcess, waiting_request: tuple[RawClient, Any]
) -> None:
    client, gate = waiting_request
    gate.open()
    assert client.read_response().status == 200
    assert gateway.post(CHAT, chat(), bearer("single-key")).status == 200


def test_place_is_free_again_when_the_client_goes_away(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.next(hang())
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(chat()), bearer("single-key"))
        full.wait_for_request()
    eventually(lambda: gateway.post(CHAT, chat(), bearer("single-key")).status == 200)


def test_place_is_free_again_after_a_refused_body(gateway: GatewayProcess) -> None:
    for body in (b"{", dumps({"model": "unknown"}), b"[]", dumps(chat())):
        response = gateway.post(CHAT, body, bearer("single-key"))
        assert response.status != 429
    assert response.status == 200


def test_refused_concurrency_does_not_use_a_place(
    gateway: GatewayProcess, waiting_request: tuple[RawClient, Any]
) -> None:
    client, gate = waiting_request
    for _ in range(3):
        assert_limited(gateway.post(CHAT, chat(), bearer("single-key")))
    gate.open()
    assert client.read_response().status == 200
    assert gateway.post(CHAT, chat(), bearer("single-key")).status == 200


def test_tenant_over_its_rate_is_refused(gateway: GatewayProcess) -> None:
    statuses = [gateway.post(CHAT, chat(), bearer("minute-key")).status for _ in range(BURST)]
    assert statuses == [200] * BURST
    # One more a second is let in: within these few milliseconds at most one.
    later = [gateway.post(CHAT, chat(), bearer("minute-key")) for _ in range(3)]
    assert_limited(later[-1])


def test_retry_after_says_when_a_slow_rate_lets_the_next_one_in(gateway: GatewayProcess) -> None:
    assert gateway.post(CHAT, chat(), bearer("slow-key")).status == 200
    assert 50 <= assert_limited(gateway.post(CHAT, chat(), bearer("slow-key"))) <= 60


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])  # noqa: S104
def test_gateway_without_keys_refuses_an_address_that_is_not_loopback(
    settings: dict[str, Any], tmp_path: Path, host: str
) -> None:
    process = GatewayProcess({**settings, "keys": [], "host": host}, tmp_path)
    process.start(wait=False)
    assert process.process.wait(60) != 0
    assert host in process.log_text()
    assert "keys" in process.log_text()
    assert "Traceback" not in process.log_text()


def test_gateway_without_keys_starts_on_localhost(settings: dict[str, Any], tmp_path: Path) -> None:
    with GatewayProcess({**settings, "keys": [], "host": "localhost"}, tmp_path) as process:
        assert process.get("/health").status == 200


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"port": "many"}, "port"),
        ({"limits": {"body_bytes": -1}}, "limits.body_bytes"),
        ({"surprise": 1}, "surprise"),
        ({"snapshot": {"epoch": 0}}, "snapshot.models"),
    ],
)
def test_gateway_with_broken_settings_names_what_is_wrong(
    settings: dict[str, Any], tmp_path: Path, broken: dict[str, Any], named: str
) -> None:
    process = GatewayProcess({**settings, **broken}, tmp_path)
    process.start(wait=False)
    assert process.process.wait(60) != 0
    assert named in process.log_text()
    assert "Traceback" not in process.log_text()
