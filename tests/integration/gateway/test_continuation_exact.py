"""A stream that breaks anywhere ends as the undisturbed one would have: text, reason and usage."""

import itertools
import json
from typing import Any

import pytest

from tests.integration.gateway.conftest import model
from tests.support.behaviours import dying_stream, engine
from tests.support.continued import stream_body
from tests.support.engine_wire import TOKENS
from tests.support.gateway_process import GatewayProcess
from tests.support.holding_engine import HoldingEngine
from tests.support.requests import CHAT, COMPLETIONS, StreamView
from tests.support.scripted_upstream import ScriptedUpstream

USAGE = {"stream_options": {"include_usage": True}}
WORDS = (" Zürich", *TOKENS[1:])
"""Words that a prompt does not run into."""
LONG = tuple(f" word{number}" for number in range(30))
"""Longer than the limit of a text completion that names none."""


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"idle_seconds": 2}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    return {"demo": model(full, int8, flag={"split": {"int8": 100}})}


REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limit": {"max_tokens": 9},
    "null_limit": {"max_tokens": None},
    "least": {"min_tokens": 3, "max_tokens": 20},
    "stop": {"stop": " by the"},
    "stops": {"stop": ["never", "🌊 and", "at all"], "max_tokens": 14},
    "stop_that_never_comes": {"stop": ["\n\n\nHuman:"], "max_tokens": 12},
    "stop_included": {"stop": [" by the sea"], "include_stop_str_in_output": True},
    "one_character": {"stop": "🌊"},
}


@pytest.mark.parametrize("interval", [1, 3, 8])
@pytest.mark.parametrize("name", REQUESTS)
def test_every_cut_is_mended(
    gateway: GatewayProcess,
    int8: ScriptedUpstream,
    full: ScriptedUpstream,
    path: str,
    name: str,
    interval: int,
) -> None:
    first = HoldingEngine("int8", WORDS, interval)
    full.always(engine(HoldingEngine("full", WORDS)))
    body = stream_body(path, **REQUESTS[name], **USAGE)
    undisturbed = StreamView.of_events(first.events(path, body))
    for cut in range(1, len(undisturbed.payloads) - 1):
        int8.always(dying_stream(first, after_events=cut))
        view = StreamView.of(gateway.post(path, body))
        assert view.text == undisturbed.text, cut
        assert view.finish_reasons == undisturbed.finish_reasons, cut
        assert view.usages == undisturbed.usages, cut
        assert (view.errors, view.done_count) == ([], 1), cut


@pytest.mark.parametrize("extra", [{}, {"max_tokens": None}])
def test_text_completion_without_a_limit_is_cut_at_sixteen_tokens(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, extra: dict[str, Any]
) -> None:
    full.always(engine(HoldingEngine("full", LONG)))
    int8.always(dying_stream(HoldingEngine("int8", LONG), after_events=10))
    view = StreamView.of(gateway.post(COMPLETIONS, stream_body(COMPLETIONS, **extra)))
    assert view.text == "".join(LONG[:16])
    assert view.finish_reasons == ["length"]


def test_several_tokens_in_one_event_all_count(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, path: str
) -> None:
    full.always(engine(HoldingEngine("full", LONG)))
    events = HoldingEngine("int8", LONG, 8).events(path, stream_body(path, max_tokens=20))
    for cut in range(1, len(events) - 2):
        int8.always(dying_stream(HoldingEngine("int8", LONG, 8), after_events=cut))
        view = StreamView.of(gateway.post(path, stream_body(path, max_tokens=20)))
        assert (view.text, view.finish_reasons) == ("".join(LONG[:20]), ["length"])


LINES = tuple(itertools.chain.from_iterable((f"{name}:", "\n", "\n", name) for name in "abc"))


def test_white_space_at_the_end_of_a_message_is_made_again(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    full.always(engine(HoldingEngine("full", LINES)))
    for cut in range(1, len(LINES)):
        full.requests.clear()
        int8.always(dying_stream(HoldingEngine("int8", LINES), after_events=1 + cut))
        view = StreamView.of(gateway.post(CHAT, stream_body(CHAT)))
        assert (view.text, view.errors) == ("".join(LINES), [])
        (asked,) = full.requests
        last = json.loads(asked.body)["messages"][-1]
        assert not last["content"][-1].isspace()
