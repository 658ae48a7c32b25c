"""Clients against real engines through the gateway.

They are the official `openai` clients of Python and of Node, litellm, and curl.
"""

import json
import subprocess
from collections.abc import Iterator

import pytest

from penumbra.serve.demo.tasks import is_correct, make_tasks
from tests.support.installation import Installation
from tests.support.litellm_contract import Litellm, LitellmContract, content_of, litellm_for
from tests.support.node_openai_contract import NodeClient, NodeOpenAIContract, node_for
from tests.support.openai_contract import Endpoint, OpenAIContract


@pytest.fixture(scope="session")
def endpoint(stack: Installation) -> Endpoint:
    return Endpoint(f"{stack.gateway_url}/v1", "demo", "no-keys-configured")


@pytest.fixture(scope="module")
def node(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeClient]:
    with node_for(endpoint, tmp_path_factory.mktemp("node")) as client:
        yield client


@pytest.fixture(scope="module")
def litellm(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Litellm]:
    with litellm_for(endpoint, tmp_path_factory.mktemp("litellm")) as client:
        yield client


class TestOpenAIClientOnRealEngines(OpenAIContract):
    """The same suite that runs over a scripted engine."""


class TestNodeOpenAIClientOnRealEngines(NodeOpenAIContract):
    """The same suite that runs over a scripted engine."""


class TestLitellmOnRealEngines(LitellmContract):
    """The same suite that runs over a scripted engine, and vLLM's own words."""

    @pytest.mark.parametrize("function", ["completion", "acompletion"])
    def test_prompt_that_is_too_long_is_known_as_one(self, litellm: Litellm, function: str) -> None:
        message = {"role": "user", "content": "a b " * 4_000}
        error = litellm(function, messages=[message]).failure
        assert error.is_a("ContextWindowExceededError")
        assert error.status == 400

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_message_of_anthropics_api_is_answered(self, litellm: Litellm, is_stream: bool) -> None:
        task = make_tasks("sort", 1, seed=11)[0]
        message = {"role": "user", "content": task.prompt}
        arguments = {"messages": [message], "max_tokens": 64, "temperature": 0}
        outcome = litellm("completion", "anthropic", **arguments, stream=is_stream)
        text = (
            content_of(outcome.parts)
            if is_stream
            else outcome.whole["choices"][0]["message"]["content"]
        )
        assert is_correct(task, text)


def curl(stack: Installation, *arguments: str) -> str:
    return subprocess.run(
        ["curl", "-sS", "--fail-with-body", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def test_curl_gets_a_stream_that_ends_with_done(stack: Installation) -> None:
    task = make_tasks("sort", 1, seed=11)[0]
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": task.prompt}],
        "temperature": 0,
        "stream": True,
    }
    url = f"{stack.gateway_url}/v1/chat/completions"
    output = curl(stack, "-N", url, "-H", "content-type: application/json", "-d", json.dumps(body))
    assert output.endswith("data: [DONE]\n\n")
    events = [json.loads(part[6:]) for part in output.split("\n\n") if part.startswith("data: {")]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert is_correct(task, text)


def test_curl_sees_who_answered(stack: Installation) -> None:
    body = json.dumps({"model": "demo", "prompt": "a", "max_tokens": 1})
    head = curl(
        stack,
        *("-D", "-", "-o", "/dev/null", f"{stack.gateway_url}/v1/completions"),
        *("-H", "content-type: application/json", "-H", "x-penumbra-variant: int4", "-d", body),
    )
    lines = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    assert lines["x-penumbra-variant"] == "int4"
    assert lines["x-penumbra-reason"] == "PIN"
