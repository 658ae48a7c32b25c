"""`penumbra up` and `status` say what builds serve wrongly, and what clients get."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.behaviours import respond
from tests.support.engine_wire import engine_error
from tests.support.installation import Installation
from tests.support.scripted_upstream import ScriptedUpstream

READY_SECONDS = 60.0
SEEN_SECONDS = 20.0
COMPLETION = respond(200, b'{"object": "text_completion", "choices": []}')
BODY = {"model": "demo", "prompt": "hi"}


def serve(build: ScriptedUpstream, name: str, max_model_len: int) -> None:
    """Let a build list this model."""
    cards = {"object": "list", "data": [{"id": name, "max_model_len": max_model_len}]}
    build.on("/v1/models", respond(200, json.dumps(cards).encode()))


class Stack:
    """Two builds, and `penumbra up` over them."""

    def __init__(
        self, full: ScriptedUpstream, int8: ScriptedUpstream, installation: Installation
    ) -> None:
        self.full = full
        self.int8 = int8
        self.installation = installation

    def start(self) -> None:
        self.installation.start()
        self.installation.wait_until_ready(READY_SECONDS)

    def status(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.installation.run("status", "--json").stdout)
        return report

    def await_problem(self, text: str) -> dict[str, Any]:
        deadline = time.monotonic() + SEEN_SECONDS
        while text not in (report := self.status())["problems"]:
            assert time.monotonic() < deadline, report
            time.sleep(0.2)
        return report


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with ExitStack() as stack:
        full, int8 = (ScriptedUpstream(name, COMPLETION) for name in ("full", "int8"))
        for build in (full, int8):
            build.start()
            stack.callback(build.stop)
            serve(build, "demo", 8192)
        variants = {build.name: {"url": build.url} for build in (full, int8)}
        models = {"demo": {"baseline": "full", "variants": variants}}
        installation = stack.enter_context(Installation(models, tmp_path))
        yield Stack(full, int8, installation)
        if installation.process is not None and installation.process.poll() is None:
            installation.send(signal.SIGTERM)
            installation.wait(60)


def test_builds_that_serve_what_is_configured_are_not_mentioned(stack: Stack) -> None:
    stack.start()
    report = stack.status()
    assert (report["health"], report["problems"], report["warnings"]) == ("healthy", [], [])
    assert "warning" not in stack.installation.output.read_text()


def test_a_wrong_name_is_said_at_once_and_makes_the_status_degraded(stack: Stack) -> None:
    serve(stack.int8, "foo", 8192)
    stack.start()
    text = (
        f"variant int8 at {stack.int8.url} serves 'foo', not 'demo':"
        " start it with --served-model-name demo"
    )
    said = stack.installation.output.read_text()
    assert f"warning: {text}" in said
    assert said.index(text) < said.index("gateway-0: ready")
    assert stack.await_problem(text)["health"] == "degraded"


def test_a_shorter_context_is_a_warning(stack: Stack) -> None:
    serve(stack.int8, "demo", 4096)
    stack.start()
    report = stack.status()
    assert (report["health"], report["problems"]) == ("healthy", [])
    assert report["warnings"] == [
        f"variant int8 at {stack.int8.url} takes 4096 tokens (max_model_len), the baseline full"
        " takes 8192: the baseline answers what is longer"
    ]


def test_a_build_that_does_not_answer_yet_may_be_starting(stack: Stack) -> None:
    with stack.int8.refusing():
        stack.start()
        said = stack.installation.output.read_text()
        assert "demo/int8: unreachable - no answer yet; it may still be starting" in said
        assert "warning" not in said


def test_status_says_within_seconds_what_clients_get(stack: Stack) -> None:
    stack.start()
    url = f"{stack.installation.gateway_url}/v1/completions"
    stack.full.on("/v1/completions", respond(500, engine_error("no", 500)))
    for _ in range(10):
        assert httpx.post(url, json=BODY, timeout=30).status_code == 500
    report = stack.await_problem("100 % of demo's answers failed in the last minute (5xx of full)")
    assert report["health"] == "degraded"
    deadline = time.monotonic() + SEEN_SECONDS
    # Counters are copied once a second: the first look may come before the last answer's.
    while report["answers"][0]["failed"] < 10 and time.monotonic() < deadline:
        time.sleep(0.2)
        report = stack.status()
    assert (report["answers"][0]["failed"], report["answers"][0]["failed_ratio"]) == (10, 1.0)
    shown = stack.installation.run("status")
    assert shown.returncode == 1
    assert "100 % of demo's answers failed" in shown.stdout
