"""A rollout at 100 %: what it compares goes to its candidate, everything else to the baseline."""

from typing import Any

import pytest

from tests.integration.gateway.conftest import EPOCH, model
from tests.support.behaviours import respond
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.requests import CHAT, COMPLETIONS, chat, request_for
from tests.support.scripted_upstream import ScriptedUpstream

RESPONSES, MESSAGES, EMBEDDINGS = "/v1/responses", "/v1/messages", "/v1/embeddings"
WHOLE = b'{"object": "some.answer"}'
PICTURE = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
]


@pytest.fixture(scope="module")
def settings(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    watch = {"candidate": "int8", "run": "run-1", "mirror": 1.0, "failure_tolerance": 0.99}
    live = {"split": {"int8": 100}}
    models = {
        "demo": model(full, int8, flag=live, watches=[watch]),
        "free": model(full, int8, flag=live),
    }
    return {"snapshot": {"epoch": EPOCH, "models": models}}


@pytest.fixture(autouse=True)
def _answers(full: ScriptedUpstream, int8: ScriptedUpstream) -> None:
    for upstream in (full, int8):
        upstream.always(respond(200, WHOLE))


def decided(
    gateway: GatewayProcess, path: str, body: dict[str, Any], **headers: str
) -> tuple[str | None, str | None]:
    response = gateway.post(path, body, headers)
    assert response.status == 200
    return response.header("x-penumbra-variant"), response.header("x-penumbra-reason")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_what_is_compared_goes_to_the_candidate(path: str, gateway: GatewayProcess) -> None:
    assert decided(gateway, path, request_for(path)) == ("int8", "SPLIT")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, {"model": "demo", "input": "hello"}),
        (MESSAGES, {"model": "demo", "max_tokens": 5, "messages": [{"role": "user"}]}),
        (EMBEDDINGS, {"model": "demo", "input": "hello"}),
        (CHAT, chat(messages=[{"role": "user", "content": PICTURE}])),
        (CHAT, chat(return_token_ids=True)),
        (CHAT, chat(use_beam_search=True)),
        (COMPLETIONS, request_for(COMPLETIONS) | {"echo": True}),
        (COMPLETIONS, request_for(COMPLETIONS) | {"prompt_embeds": "AAAA"}),
    ],
)
def test_what_is_not_compared_stays_on_the_baseline(
    path: str, body: dict[str, Any], gateway: GatewayProcess
) -> None:
    assert decided(gateway, path, body) == ("full", "UNCOMPARED")
    # A pin is the operator's, or the client's, own wish; without a rollout so is the share.
    assert decided(gateway, path, body, **{"x-penumbra-variant": "int8"}) == ("int8", "PIN")
    assert decided(gateway, path, body | {"model": "free"}) == ("int8", "SPLIT")


def test_traffic_of_two_routes_is_released_by_the_route_that_is_compared(
    gateway: GatewayProcess,
) -> None:
    given: dict[str, list[str | None]] = {CHAT: [], EMBEDDINGS: []}
    sheds = {"model": "demo", "candidate": "int8", "reason": "route"}
    with counting(gateway, "penumbra_mirror_sheds_total", by=20, **sheds):
        for number in range(20):
            text = f"question {number}"
            asked = chat(messages=[{"role": "user", "content": text}])
            given[CHAT].append(decided(gateway, CHAT, asked)[0])
            given[EMBEDDINGS].append(
                decided(gateway, EMBEDDINGS, {"model": "demo", "input": text})[0]
            )
    assert given == {CHAT: ["int8"] * 20, EMBEDDINGS: ["full"] * 20}
