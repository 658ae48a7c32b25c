"""An engine that has stopped and sends comments all the same is not waited for.

The candidate runs with vLLM's `--sse-keep-alive-interval`: its API server sends a comment for every
second without a token. Under SIGSTOP its engine core makes none, and the comments go on.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import COMMENTING
from tests.e2e.test_hosting import engine_core
from tests.support.gateway_process import GatewayProcess, counting, eventually
from tests.support.installation import Installation
from tests.support.requests import CHAT, COMPLETIONS, StreamView, dumps

FIRST_DATA_SECONDS = 3.0
IDLE_SECONDS = 3.0
SLACK_SECONDS = 10.0
"""Longest time for the baseline's answer on a busy machine."""
COMMENT = b": keep-alive\n\n"
LONG = 600
"""Tokens: seconds of work."""


@pytest.fixture(scope="module")
def gateway(
    stack: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway of its own that sends everything to the candidate with comments."""
    model = {
        "baseline": "full",
        "variants": {name: {"url": stack.variant_url(name)} for name in ("full", COMMENTING)},
        "flag": {"split": {COMMENTING: 100}},
    }
    limits = {"candidate_first_byte_seconds": FIRST_DATA_SECONDS, "idle_seconds": IDLE_SECONDS}
    settings = {"snapshot": {"epoch": 1, "models": {"demo": model}}, "limits": limits}
    with GatewayProcess(settings, tmp_path_factory.mktemp("gateway")) as process:
        yield process


@contextmanager
def stopped(stack: Installation) -> Iterator[None]:
    """The candidate's engine core under SIGSTOP."""
    core = engine_core(stack, COMMENTING)
    core.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        core.send_signal(signal.SIGCONT)


@pytest.fixture(autouse=True)
def _goes_on(gateway: GatewayProcess) -> Iterator[None]:
    """The candidate serves before a test and after it."""

    def is_in_service() -> bool:
        response = gateway.post(CHAT, chat())
        return response.header("x-penumbra-variant") == COMMENTING

    eventually(is_in_service, timeout=30.0, what="the candidate to serve")
    yield
    eventually(is_in_service, timeout=30.0, what="the candidate to go on")


@contextmanager
def held_against_the_candidate(gateway: GatewayProcess) -> Iterator[None]:
    """Assert that what happens inside counts as one time-out of the candidate."""
    name = "penumbra_upstream_attempts_total"
    with counting(gateway, name, variant=COMMENTING, outcome="timeout"):
        yield


def chat(**more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": "Sort: bab dad"}
    return {"model": "demo", "messages": [message], "max_tokens": 4, "temperature": 0, **more}


def completion(**more: Any) -> dict[str, Any]:
    return {"model": "demo", "prompt": "Sort: bab dad", "max_tokens": 4, "temperature": 0, **more}


REQUESTS = {CHAT: chat, COMPLETIONS: completion}


@pytest.mark.parametrize("path", REQUESTS)
def test_engine_that_has_stopped_goes_on_sending_comments(stack: Installation, path: str) -> None:
    url = stack.variant_url(COMMENTING) + path
    began = time.monotonic()
    sent = b""
    with (
        stopped(stack),
        httpx.stream("POST", url, json=REQUESTS[path](stream=True), timeout=30.0) as response,
    ):
        for piece in response.iter_raw():
            sent += piece
            if time.monotonic() - began > FIRST_DATA_SECONDS + 0.5:
                break
    assert response.status_code == 200
    assert sent == COMMENT * sent.count(COMMENT)
    assert sent.count(COMMENT) >= FIRST_DATA_SECONDS - 1.0


@pytest.mark.parametrize("path", REQUESTS)
def test_baseline_answers_for_an_engine_that_sends_comments_only(
    stack: Installation, gateway: GatewayProcess, path: str
) -> None:
    body = REQUESTS[path](stream=True)
    began = time.monotonic()
    with held_against_the_candidate(gateway), stopped(stack):
        response = gateway.post(path, body)
        waited = time.monotonic() - began
    assert response.header("x-penumbra-variant") == "full"
    assert response.header("x-penumbra-failover") == "timeout"
    assert FIRST_DATA_SECONDS <= waited < FIRST_DATA_SECONDS + SLACK_SECONDS
    found = StreamView.of(response)
    assert (found.errors, found.done_count) == ([], 1)
    assert found.text == answer_of_the_baseline(stack, path, body).text


@pytest.mark.parametrize("path", REQUESTS)
def test_baseline_continues_a_stream_whose_engine_sends_comments_only(
    stack: Installation, gateway: GatewayProcess, path: str
) -> None:
    body = REQUESTS[path](stream=True, max_tokens=LONG, ignore_eos=True)
    with gateway.connect() as client:
        client.send_request(path, dumps(body))
        head = client.read_head()
        begun = client.read_chunk()
        with held_against_the_candidate(gateway), stopped(stack):
            head.body = begun + b"".join(client.read_chunks())
    assert head.header("x-penumbra-variant") == COMMENTING
    found = StreamView.of(head)
    assert (found.errors, found.done_count) == ([], 1)
    assert found.finish_reasons == ["length"]
    # The client saw them come, one a second, and no more than the limit lets through.
    assert 1 <= head.body.count(COMMENT) <= IDLE_SECONDS + 1


def answer_of_the_baseline(stack: Installation, path: str, body: dict[str, Any]) -> StreamView:
    answer = httpx.post(stack.variant_url("full") + path, json=body, timeout=30.0)
    assert answer.status_code == 200, answer.text
    return StreamView.of_events(answer.content.split(b"\n\n"))
