"""Streams that cannot be continued, and continuations that fail, end in an error event."""

import json
import time
from typing import Any

import pytest

from tests.integration.gateway.conftest import FULL, INT8, model
from tests.support.behaviours import (
    close_before_head,
    dying_stream,
    error_event,
    hang,
    raw,
    respond,
    stream_of,
)
from tests.support.engine_wire import TOKENS, Engine, engine_error, event
from tests.support.gateway_process import GatewayProcess, counting
from tests.support.raw_client import BadFraming
from tests.support.requests import (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    StreamView,
    chat,
    completion,
    request_for,
)
from tests.support.scripted_connection import Behaviour
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    return {"idle_seconds": 0.4, "first_byte_seconds": 0.6}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    return {"demo": model(full, int8, flag={"split": {"int8": 100}})}


@pytest.fixture(autouse=True)
def _alive(full: ScriptedUpstream) -> None:
    """The baseline is asked for a sign of life about failures that no answer explains."""
    full.on("/health", respond(200, b""))


def read_broken_stream(gateway: GatewayProcess, path: str, body: object) -> list[bytes]:
    """Read a stream that must end with its connection, its last event an error."""
    with gateway.connect() as client:
        client.send_request(path, json.dumps(body).encode())
        head = client.read_head()
        assert head.status == 200
        data = b""
        try:
            while piece := client.read_chunk():
                data += piece
        except BadFraming:
            pass
        assert client.read_to_eof() == b""
    assert data.endswith(b"\n\n")
    return [part + b"\n\n" for part in data.split(b"\n\n")[:-1]]


def assert_ends_with_error(events: list[bytes]) -> StreamView:
    view = StreamView.of_events(events)
    assert view.done_count == 0
    (error,) = view.errors
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "upstream_died"
    assert "error" in view.objects[-1]
    return view


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"required": ["a"]}}}

UNCONTINUABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "chat_n": (CHAT, chat(stream=True, n=2)),
    "chat_tools": (CHAT, chat(stream=True, tools=[TOOL])),
    "chat_functions": (CHAT, chat(stream=True, functions=[{"name": "f"}])),
    "chat_json_mode": (CHAT, chat(stream=True, response_format={"type": "json_object"})),
    "chat_schema": (CHAT, chat(stream=True, response_format=SCHEMA)),
    "chat_structured": (CHAT, chat(stream=True, structured_outputs={"regex": "a+"})),
    "chat_guided": (CHAT, chat(stream=True, guided_json={"type": "object"})),
    "chat_logprobs": (CHAT, chat(stream=True, logprobs=True, top_logprobs=2)),
    "chat_echo": (CHAT, chat(stream=True, echo=True)),
    "completion_n": (COMPLETIONS, completion(stream=True, n=3)),
    "completion_logprobs": (COMPLETIONS, completion(stream=True, logprobs=1)),
    "completion_logprobs_0": (COMPLETIONS, completion(stream=True, logprobs=0)),
    "completion_echo": (COMPLETIONS, completion(stream=True, echo=True)),
    "completion_prompts": (COMPLETIONS, {**completion(stream=True), "prompt": ["a", "b"]}),
    "completion_one_prompt": (COMPLETIONS, {**completion(stream=True), "prompt": ["a"]}),
    "completion_token_ids": (COMPLETIONS, {**completion(stream=True), "prompt": [1, 2, 3]}),
    "completion_suffix": (COMPLETIONS, completion(stream=True, suffix="the end")),
    "responses": (RESPONSES, request_for(RESPONSES, stream=True)),
}


@pytest.mark.parametrize("name", UNCONTINUABLE)
@pytest.mark.parametrize("end", ["fin", "rst"])
def test_stream_that_cannot_be_continued_ends_with_an_error(
    gateway: GatewayProcess,
    int8: ScriptedUpstream,
    full: ScriptedUpstream,
    name: str,
    end: Any,
) -> None:
    path, body = UNCONTINUABLE[name]
    after = 2 if "schema" in name or "json" in name else 4
    int8.always(dying_stream(INT8, after_events=after, end=end))
    events = read_broken_stream(gateway, path, body)
    assert_ends_with_error(events)
    assert len(events) == after + 1
    assert [request for request in full.requests if request.target == path] == []


def test_stream_of_reasoning_ends_with_an_error(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "demo"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, {"reasoning": "Hm"}]
    events = [
        event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        for delta in deltas
    ]
    int8.always(stream_of(*events, end="fin"))
    assert_ends_with_error(read_broken_stream(gateway, CHAT, chat(stream=True)))


def test_stream_that_is_too_long_to_be_kept_ends_with_an_error(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    long = Engine("int8", tokens=("x" * 60_000,) * 120)
    int8.always(dying_stream(long, after_events=110))
    assert_ends_with_error(read_broken_stream(gateway, CHAT, chat(stream=True)))


@pytest.mark.parametrize("name", ["chat_n", "completion_echo", "responses"])
def test_part_of_an_event_is_not_sent_before_the_error(
    gateway: GatewayProcess, int8: ScriptedUpstream, name: str
) -> None:
    path, body = UNCONTINUABLE[name]
    int8.always(dying_stream(INT8, after_events=3, partial=lambda data: data[:30]))
    events = read_broken_stream(gateway, path, body)
    assert_ends_with_error(events)
    assert len(events) == 4


def test_stream_that_cannot_be_continued_is_counted_as_a_death(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    path, body = UNCONTINUABLE["chat_n"]
    int8.always(dying_stream(INT8, after_events=3))
    labels = {"variant": "int8", "outcome": "died"}
    wait_for_judgements(gateway, **labels)
    with counting(gateway, "penumbra_upstream_attempts_total", **labels):
        read_broken_stream(gateway, path, body)


def wait_for_judgements(gateway: GatewayProcess, **labels: str) -> None:
    """Until the failures of the tests before are counted: each once the baseline has been asked."""
    count = -1.0
    while count != (now := gateway.metric("penumbra_upstream_attempts_total", **labels)):
        count = now
        time.sleep(0.5)


TOOL_CALL = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize("body", [chat(stream=True, n=2), chat(stream=True, tools=[TOOL])])
@pytest.mark.parametrize("end", ["end", "fin"])
def test_complete_stream_that_cannot_be_continued_gets_its_missing_end(
    gateway: GatewayProcess, int8: ScriptedUpstream, body: dict[str, Any], end: Any
) -> None:
    every = INT8.events(CHAT, body)[:-1]
    if "tools" in body:
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "demo"}
        call = {"index": 0, "delta": {"tool_calls": [TOOL_CALL]}, "finish_reason": None}
        last = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
        every = [every[0], *(event({**head, "choices": [choice]}) for choice in (call, last))]
    int8.always(stream_of(*every, end=end))
    labels = {"variant": "int8", "outcome": "ok"}
    with counting(gateway, "penumbra_upstream_attempts_total", **labels):
        view = StreamView.of(gateway.post(CHAT, body))
    assert view.errors == []
    assert (view.done_count, view.payloads[-1]) == (1, b"[DONE]")


BROKEN_CONTINUATIONS: dict[str, Behaviour] = {
    "dies_at_once": dying_stream(FULL, after_events=1),
    "dies_later": dying_stream(FULL, after_events=4),
    "resets": dying_stream(FULL, after_events=4, end="rst"),
    "ends_early": dying_stream(FULL, after_events=4, end="end"),
    "hangs_later": dying_stream(FULL, after_events=4, end="hang"),
    "hangs": hang(),
    "closes": close_before_head(),
    "says_500": respond(500, engine_error("boom", 500)),
    "says_400": respond(400, engine_error("too long", 400)),
    "says_404": respond(404, b"<html></html>", [("content-type", "text/html")]),
    "not_http": raw(b"hello\r\n\r\n"),
    "error_event": stream_of(error_event()),
    "nonsense_event": stream_of(b"data: oops\n\n"),
    "unary_answer": respond(200, b'{"choices":[]}'),
}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("name", BROKEN_CONTINUATIONS)
def test_continuation_that_fails_ends_with_an_error(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, path: str, name: str
) -> None:
    body = chat(stream=True) if path == CHAT else completion(stream=True)
    int8.always(dying_stream(INT8, after_events=5))
    full.always(BROKEN_CONTINUATIONS[name])
    events = read_broken_stream(gateway, path, body)
    said = assert_ends_with_error(events).text
    assert "".join(TOKENS).startswith(said)
    assert "".join(TOKENS[:4]) in said


def test_baseline_that_dies_twice_ends_with_an_error(
    gateway: GatewayProcess, full: ScriptedUpstream
) -> None:
    full.always(dying_stream(FULL, after_events=3))
    with gateway.connect() as client:
        client.send_request(
            CHAT, json.dumps(chat(stream=True)).encode(), {"x-penumbra-variant": "full"}
        )
        data = client.read_to_eof()
    assert b'"code": "upstream_died"' in data or b'"code":"upstream_died"' in data
    assert b"[DONE]" not in data
    assert len([request for request in full.requests if request.target == CHAT]) == 2


def test_continuation_without_a_baseline_ends_with_an_error(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    int8.always(dying_stream(INT8, after_events=3))
    with full.refusing():
        assert_ends_with_error(read_broken_stream(gateway, CHAT, chat(stream=True)))


def test_other_requests_go_on_while_one_stream_breaks(
    gateway: GatewayProcess, int8: ScriptedUpstream
) -> None:
    int8.next(dying_stream(INT8, after_events=3))
    read_broken_stream(gateway, CHAT, chat(stream=True, n=2))
    assert gateway.post(CHAT, chat()).status == 200
