"""Blame on real engines: a sound build stays in service, whatever clients send and engines do."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from penumbra.monitoring.vocabulary import FAILURES
from tests.e2e.test_hosting import engine_core, replica
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.installation import Installation
from tests.support.requests import CHAT, COMPLETIONS, StreamView

ATTACKS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "embeddings of a chat model": ("/v1/embeddings", {"input": "x"}, {}),
    "a score of a chat model": ("/score", {"text_1": "a", "text_2": "b"}, {}),
    "a schema that refers to itself": (
        CHAT,
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"$ref": "#"}},
            }
        },
        {},
    ),
    "an assistant item without content": (
        "/v1/responses",
        {"input": [{"type": "message", "role": "assistant", "content": []}]},
        {},
    ),
    "a stream without truncation": (
        "/v1/responses",
        {"input": "hi", "stream": True, "truncation": None},
        {},
    ),
    "a head that a proxy does not take": (CHAT, {}, {"x-long": "a" * 15_500}),
    "a prompt that is too long": (COMPLETIONS, {"prompt": "a b " * 4_000}, {}),
    "a parameter out of range": (CHAT, {"temperature": -3}, {}),
}
ENOUGH = 8
"""Of each attack: two of a candidate's own failures take it out."""


def hello(**more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "Sort: bab dad"}
    return {"model": "demo", "messages": [message], "max_tokens": 4, **more}


@pytest.fixture(scope="module")
def gateway(
    stack: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway of its own before the engines, whose guard watches a promoted candidate."""
    watch = {"candidate": "twin", "run": "run-1"}
    model = {
        "baseline": "full",
        "variants": {name: {"url": stack.variant_url(name)} for name in ("full", "twin")},
        "flag": {"split": {"twin": 100}},
        "watches": [watch],
    }
    limits = {"candidate_first_byte_seconds": 3.0, "whole_answer_seconds": 6.0}
    settings = {"snapshot": {"epoch": 1, "models": {"demo": model}}, "limits": limits}
    with GatewayProcess(settings, tmp_path_factory.mktemp("gateway")) as process:
        yield process


def failures(gateway: GatewayProcess) -> float:
    """Failures that are held against the candidate."""
    return sum(
        gateway.metric("penumbra_upstream_attempts_total", variant="twin", outcome=outcome.value)
        for outcome in FAILURES
    )


def is_in_service(gateway: GatewayProcess) -> bool:
    response = gateway.post(CHAT, hello())
    assert response.status == 200
    return response.header("x-penumbra-variant") == "twin"


@pytest.mark.parametrize("name", ATTACKS)
def test_requests_that_every_build_refuses_take_no_build_out(
    gateway: GatewayProcess, name: str
) -> None:
    path, body, headers = ATTACKS[name]
    before = failures(gateway)
    for _ in range(ENOUGH):
        gateway.post(path, {**(hello() if path == CHAT else {"model": "demo"}), **body}, headers)
    assert failures(gateway) == before
    assert is_in_service(gateway)


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_stopped_engine_is_found_out_and_no_client_waits_for_it(
    stack: Installation, gateway: GatewayProcess, is_stream: bool
) -> None:
    core = engine_core(stack, "twin")
    core.send_signal(signal.SIGSTOP)
    try:
        response = gateway.post(CHAT, hello(stream=is_stream))
    finally:
        core.send_signal(signal.SIGCONT)
    assert response.status == 200
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-failover") == "timeout"
    if is_stream:
        assert StreamView.of(response).done_count == 1
    # One failure is no evidence yet.
    eventually(lambda: is_in_service(gateway), timeout=30.0, what="the engine to go on")


def test_both_engines_killed_together_are_held_against_neither(
    stack: Installation, gateway: GatewayProcess
) -> None:
    before = failures(gateway)
    families = [
        process
        for name in ("twin", "full")
        for victim in (replica(stack, name),)
        for process in (victim, *victim.children(recursive=True))
    ]
    body = hello(stream=True, max_tokens=400, min_tokens=400, tools=[_tool()])
    with ThreadPoolExecutor(16) as clients:
        streams = [clients.submit(gateway.post, CHAT, body) for _ in range(16)]
        time.sleep(1.0)
        for process in families:
            process.kill()
        for stream in streams:
            stream.exception()
        while_down = [clients.submit(gateway.post, CHAT, hello()) for _ in range(16)]
        for request in while_down:
            request.exception()

    # While both are down; one that comes back later than the other is down alone.
    assert failures(gateway) == before
    for name in ("twin", "full"):
        eventually(
            lambda name=name: _answers(stack.variant_url(name)),  # type: ignore[misc]
            timeout=180.0,
            what=f"{name} to be back",
        )
    eventually(lambda: is_in_service(gateway), timeout=30.0, what="the candidate to serve again")
    assert failures(gateway) == before


def _answers(url: str) -> bool:
    try:
        return httpx.post(f"{url}{CHAT}", json=hello(), timeout=10.0).status_code == 200
    except httpx.TransportError:
        return False


def _tool() -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": "look_up", "parameters": parameters}}
