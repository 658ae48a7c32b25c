"""Streams of a real engine, cut anywhere: continued on that engine, they end as uncut ones do.

The candidate replays the events of an answer that the engine gave undisturbed, and dies. So the two
builds are one, and the whole must be the undisturbed answer: text, finish reason and usage.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.serve.demo.tasks import make_tasks
from tests.support.behaviours import STREAM_HEAD, break_off, chunk
from tests.support.gateway_process import GatewayProcess
from tests.support.installation import Installation
from tests.support.requests import CHAT, COMPLETIONS, StreamView
from tests.support.scripted_connection import Exchange
from tests.support.scripted_upstream import ScriptedUpstream

CUTS = 40
"""Of each kind of request."""
USAGE = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Recorded:
    """A request and the events of its undisturbed answer."""

    path: str
    body: dict[str, Any]
    events: list[bytes]

    @property
    def cuts(self) -> range:
        """Numbers of events after which something is missing, the usage at least."""
        return range(1, len(self.events) - 1)


def chat(slice_name: str, count: int, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    """Chat requests whose answers the demo's model has learned."""
    tasks = make_tasks(slice_name, count, seed=11)
    return [(CHAT, {"messages": [{"role": "user", "content": t.prompt}], **more}) for t in tasks]


def completions(slice_name: str, count: int, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    """The same as text completions, with the chat template written out."""
    tasks = make_tasks(slice_name, count, seed=11)
    turn = "<|begin|><|user|>{}<|end|><|assistant|>"
    begin = {"add_special_tokens": False}
    return [(COMPLETIONS, {"prompt": turn.format(t.prompt), **begin, **more}) for t in tasks]


REQUESTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "stop": [
        *chat("json", 1, stop=[', "city": "', "never said"], max_tokens=90),
        *completions("json", 1, stop='"age"', max_tokens=60),
        *chat("arithmetic", 1, stop=["=1", "=9"], include_stop_str_in_output=True, max_tokens=60),
    ],
    "no_limit": [*completions("arithmetic", 3), *completions("json", 1, max_tokens=None)],
    "interval": [
        *chat("json", 6, stream_interval=8, max_tokens=37),
        *completions("json", 4, stream_interval=8, max_tokens=60, stop=[', "city": "']),
        *chat("arithmetic", 2, stream_interval=8),
    ],
}


@pytest.fixture(scope="module")
def candidate() -> Iterator[ScriptedUpstream]:
    async def die(exchange: Exchange) -> None:
        raise AssertionError("not told what to replay")

    upstream = ScriptedUpstream("candidate", die)
    upstream.start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def gateway(
    stack: Installation, candidate: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    table = {
        "baseline": "full",
        "variants": {"full": {"url": stack.variant_url("full")}, "cut": {"url": candidate.url}},
        "flag": {"split": {"cut": 100}},
    }
    settings = {"snapshot": {"epoch": 1, "models": {"demo": table}}}
    folder: Path = tmp_path_factory.mktemp("gateway")
    with GatewayProcess(settings, folder) as process:
        yield process


def record(stack: Installation, path: str, more: dict[str, Any]) -> Recorded:
    """Ask the engine itself."""
    body = {"model": "demo", "temperature": 0, "stream": True, **USAGE, **more}
    answer = httpx.post(stack.variant_url("full") + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    events = [event + b"\n\n" for event in answer.content.split(b"\n\n") if event]
    assert events[-1] == b"data: [DONE]\n\n"
    return Recorded(path, body, events)


def chosen(recorded: list[Recorded]) -> list[tuple[Recorded, int]]:
    """So many cuts, evenly over all answers."""
    cuts = [(item, cut) for item in recorded for cut in item.cuts]
    assert len(cuts) >= CUTS
    return [cuts[index * len(cuts) // CUTS] for index in range(CUTS)]


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_stream_cut_anywhere_ends_as_the_uncut_one(
    kind: str, stack: Installation, gateway: GatewayProcess, candidate: ScriptedUpstream
) -> None:
    recorded = [record(stack, path, more) for path, more in REQUESTS[kind]]
    for item, cut in chosen(recorded):
        candidate.always(replay(item.events[:cut]))
        answer = gateway.post(item.path, item.body)
        assert answer.header("x-penumbra-variant") == "cut"
        found, wanted = StreamView.of(answer), StreamView.of_events(item.events)
        where = json.dumps([item.body, cut])
        assert found.text == wanted.text, where
        assert found.finish_reasons == wanted.finish_reasons, where
        assert figures(found) == figures(wanted), where
        assert (found.errors, found.done_count) == ([], 1), where


def replay(events: list[bytes]) -> Any:
    """The behaviour that sends these events and dies."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD + b"".join(map(chunk, events)))
        await break_off(exchange, "fin")

    return behave


def figures(view: StreamView) -> list[tuple[int, int]]:
    """Tokens of the prompt and of the answer, of each usage."""
    return [(usage["prompt_tokens"], usage["completion_tokens"]) for usage in view.usages]
