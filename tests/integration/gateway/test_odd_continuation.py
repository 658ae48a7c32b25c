"""Broken streams of an odd kind, and baselines that are odd: the client is told, and soon.

The gateway's limits are the default ones, which are longer than a test waits.
"""

import json
from typing import Any

import pytest

from tests.integration.gateway.conftest import INT8, model
from tests.support.behaviours import dying_stream, hang, respond, stream_of
from tests.support.continued import continuation_of, events_before, stream_body
from tests.support.engine_wire import DONE, TEXT, event
from tests.support.gateway_process import GatewayProcess
from tests.support.requests import CHAT, COMPLETIONS, StreamView, chat, dumps
from tests.support.scripted_connection import Behaviour
from tests.support.scripted_upstream import ScriptedUpstream

USAGE = {"stream_options": {"include_usage": True}}
HEAD = {"id": "chatcmpl-int8-0", "object": "chat.completion.chunk", "created": 1, "model": "demo"}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    return {"demo": model(full, int8, flag={"split": {"int8": 100}})}


@pytest.fixture(autouse=True)
def _alive(full: ScriptedUpstream) -> None:
    full.on("/health", respond(200, b""))


def delta(reason: str | None = None, **fields: Any) -> bytes:
    return event({**HEAD, "choices": [{"index": 0, "delta": fields, "finish_reason": reason}]})


ROLE = delta(role="assistant", content="")
ODD: dict[str, Any] = {
    "choices_of_strings": {"choices": ["x"]},
    "choices_an_object": {"choices": {"a": 1}},
    "choices_a_number": {"choices": 5},
    "choices_of_null": {"choices": [None]},
    "delta_a_string": {"choices": [{"delta": "abc"}]},
    "content_a_number": {"choices": [{"delta": {"content": 5}}]},
    "content_a_list": {"choices": [{"delta": {"content": [{"type": "text"}]}}]},
}
ODD_TO_READ: dict[str, Any] = {
    **ODD,
    "finish_reason_an_object": {"choices": [{"delta": {}, "finish_reason": {}}]},
    "another_choice": {"choices": [{"index": 3, "delta": {"content": "x"}}]},
}


def last_object(gateway: GatewayProcess, body: dict[str, Any]) -> dict[str, Any]:
    """The last event of a stream that breaks off."""
    with gateway.connect() as client:
        client.send_request(CHAT, dumps(body))
        data = client.read_to_eof()
    payload = data[data.rindex(b"data: ") + 6 : data.rindex(b"\n\n")]
    found: dict[str, Any] = json.loads(payload)
    return found


@pytest.mark.parametrize("name", ODD_TO_READ)
def test_odd_event_before_the_death_is_told_at_once(
    gateway: GatewayProcess, int8: ScriptedUpstream, name: str
) -> None:
    int8.always(stream_of(ROLE, event({**HEAD, **ODD_TO_READ[name]}), end="fin"))
    assert last_object(gateway, chat(stream=True))["error"]["code"] == "upstream_died"


@pytest.mark.parametrize("name", ODD)
def test_odd_event_of_the_continuation_is_told_at_once(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, name: str
) -> None:
    int8.always(stream_of(ROLE, delta(content="a"), end="fin"))
    full.always(stream_of(ROLE, event({**HEAD, **ODD[name]}), end="hang"))
    assert last_object(gateway, chat(stream=True))["error"]["code"] == "upstream_died"


@pytest.mark.parametrize(
    "more", [{"include_reasoning": False}, {"x": 1, "include_reasoning": "false"}]
)
def test_hidden_reasoning_is_not_continued(
    gateway: GatewayProcess, int8: ScriptedUpstream, more: dict[str, Any]
) -> None:
    int8.always(stream_of(ROLE, delta(content="a"), end="fin"))
    assert last_object(gateway, chat(stream=True, **more))["error"]["code"] == "upstream_died"


@pytest.mark.parametrize(
    "fields",
    [{"function_call": {"name": "f", "arguments": "{"}}, {"refusal": "no"}, {"reasoning": "hm"}],
)
def test_more_than_text_is_not_continued(
    gateway: GatewayProcess, int8: ScriptedUpstream, fields: dict[str, Any]
) -> None:
    int8.always(stream_of(ROLE, delta(**fields), end="fin"))
    assert last_object(gateway, chat(stream=True))["error"]["code"] == "upstream_died"


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
    ],
)
def test_all_that_the_baseline_says_after_its_role_reaches_the_client(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, fields: dict[str, Any]
) -> None:
    int8.always(stream_of(ROLE, end="fin"))
    full.always(stream_of(ROLE, delta(**fields), delta(content="x"), delta("stop"), DONE))
    view = StreamView.of(gateway.post(CHAT, chat(stream=True)))
    assert [choice["delta"] for choice in view.choices][1] == fields
    assert (view.text, view.roles, view.done_count) == ("x", ["assistant"], 1)


@pytest.mark.parametrize("text", ["\n\n", " ", "\t\n "])
def test_white_space_is_no_message_to_continue(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream, text: str
) -> None:
    int8.always(stream_of(ROLE, delta(content=text), end="fin"))
    full.always(stream_of(ROLE, delta(content="x"), delta("stop"), DONE))
    view = StreamView.of(gateway.post(CHAT, chat(stream=True)))
    assert view.text == text + "x"
    asked = json.loads(continuation_of(full, CHAT).body)
    assert asked["messages"][-1]["role"] == "user"


TOKENIZERS: dict[str, Behaviour] = {
    "absent": respond(404, b'{"detail":"Not Found"}'),
    "html": respond(200, b"<html></html>", [("content-type", "text/html")]),
    "count_a_string": respond(200, b'{"count":"x"}'),
    "count_null": respond(200, b'{"count":null}'),
    "count_negative": respond(200, b'{"count":-1}'),
    "list": respond(200, b"[1]"),
    "nothing": respond(200, b""),
    "broken": respond(500, b"oops"),
    "hangs": hang(),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("more", [USAGE, {"max_tokens": 40}, {**USAGE, "max_tokens": 40}])
def test_answer_goes_on_whatever_tokenize_says(
    gateway: GatewayProcess,
    int8: ScriptedUpstream,
    full: ScriptedUpstream,
    path: str,
    name: str,
    more: dict[str, Any],
) -> None:
    int8.always(dying_stream(INT8, after_events=events_before(path, 4)))
    full.on("/tokenize", TOKENIZERS[name])
    view = StreamView.of(gateway.post(path, stream_body(path, **more)))
    assert (view.text, view.errors, view.done_count) == (TEXT, [], 1)
    assert len(view.usages) == ("stream_options" in more)


def test_fields_that_no_parser_holds_are_continued(
    gateway: GatewayProcess, int8: ScriptedUpstream, full: ScriptedUpstream
) -> None:
    int8.always(dying_stream(INT8, after_events=4))
    body = dumps(stream_body(COMPLETIONS, x=2**70))[:-1] + b',"y":1e999}'
    with gateway.connect() as client:
        client.send_request(COMPLETIONS, body)
        view = StreamView.of(client.read_response())
    assert view.text == TEXT
    assert b'"x":1180591620717411303424' in continuation_of(full, COMPLETIONS).body
