"""The official `openai` client, and curl, against real engines through the gateway."""

import json
import subprocess

import pytest

from penumbra.serve.demo.tasks import is_correct, make_tasks
from tests.support.installation import Installation
from tests.support.openai_contract import Endpoint, OpenAIContract


@pytest.fixture(scope="session")
def endpoint(stack: Installation) -> Endpoint:
    return Endpoint(f"{stack.gateway_url}/v1", "demo", "no-keys-configured")


class TestOpenAIClientOnRealEngines(OpenAIContract):
    """The same suite that runs over a scripted engine."""


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
