"""A tap leaves no trace on a real engine: the same request with and without.

Whole answers are compared byte for byte. A stream's events cannot be: vLLM puts tokens that were
made while it was busy into one event, so no two streams of a shared machine are cut alike. Compared
are the bytes of each kind of event with its words and numbers taken out, and all words and
log-probabilities joined. (The scripted engine of the integration tests cuts alike, and there the
bytes are compared.)
"""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penumbra.router.shadow.case import Case, read_case
from tests.support.frame_sink import FrameSink
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.installation import Installation
from tests.support.raw_client import RawResponse

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
GREEK = "αλφάβητο: ήλιος, δρόμος, αγάπη"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 6}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]
BYTES = re.compile(rb'"(id|created)":("[^"]*"|\d+)')
"""What differs between any two answers; ids of tool calls are among it."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {}),
    "greek": (CHAT, {"messages": [{"role": "user", "content": GREEK}]}),
    # Any token may come, so many of these split a character.
    "split": (CHAT, {"temperature": 2.0, "seed": 5, "max_tokens": 48, "ignore_eos": True}),
    "n": (CHAT, {"n": 2, "temperature": 0.7, "seed": 7}),
    "logprobs": (CHAT, {"logprobs": True, "top_logprobs": 3}),
    "usage": (CHAT, {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    "json": (CHAT, {"response_format": {"type": "json_object"}, "max_tokens": 24}),
    "named-tool": (
        CHAT,
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    ),
    "required-tool": (CHAT, {"tools": TOOLS, "tool_choice": "required"}),
    "no-tool": (CHAT, {"tools": TOOLS, "tool_choice": "none"}),
    "chat-echo": (CHAT, {"echo": True, "add_generation_prompt": False}),
    "length": (CHAT, {"max_tokens": 3}),
    "stop": (CHAT, {"stop": ["e", "α"]}),
    "refused": (CHAT, {"max_tokens": 1_000_000}),
    "malformed": (CHAT, {"temperature": "hot"}),
    "completion": (COMPLETIONS, {}),
    "completion-greek": (COMPLETIONS, {"prompt": GREEK}),
    "completion-split": (COMPLETIONS, {"temperature": 2.0, "seed": 5, "ignore_eos": True}),
    "completion-n": (COMPLETIONS, {"n": 2, "temperature": 0.7, "seed": 7}),
    "completion-logprobs": (COMPLETIONS, {"logprobs": 2}),
    "completion-echo": (COMPLETIONS, {"echo": True, "logprobs": 1}),
    "completion-prompts": (COMPLETIONS, {"prompt": ["Sort: b a", "Sort: d c"]}),
    "completion-ids": (COMPLETIONS, {"prompt": [40, 41, 42]}),
    "completion-prompt-logprobs": (COMPLETIONS, {"prompt_logprobs": 0}),
    "own-wish": (CHAT, {"return_token_ids": True}),
}
UNTAPPED = {"own-wish", "chat-echo", "completion-echo"}
FAILING = {"refused", "malformed", "named-tool", "required-tool"}
"""The demo's engines have no tool parser, so they refuse to be told to call a tool."""


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrameSink]:
    with FrameSink(tmp_path_factory.mktemp("sink") / "shadow.sock") as sink:
        yield sink


@pytest.fixture(scope="module")
def table(stack: Installation) -> dict[str, Any]:
    url = stack.variant_url("full")
    return {
        "baseline": "full",
        "variants": {"full": {"url": url}, "int8": {"url": url}},
        "watches": [{"candidate": "int8", "run": "run-1", "mirror": 1.0}],
    }


@pytest.fixture(scope="module")
def gateway(table: dict[str, Any], sink: FrameSink, tmp_path_factory: Any) -> Iterator[Any]:
    """A gateway that mirrors every request."""
    settings = {
        "snapshot": {"epoch": 1, "models": {"demo": table}},
        "shadow_socket": str(sink.path),
    }
    folder: Path = tmp_path_factory.mktemp("gateway")
    with GatewayProcess(settings, folder) as process:
        eventually(lambda: process.metric("penumbra_comparator_connected") == 1)
        yield process


@pytest.fixture(scope="module")
def plain_gateway(table: dict[str, Any], tmp_path_factory: Any) -> Iterator[Any]:
    """The same without mirroring."""
    model = {name: value for name, value in table.items() if name != "watches"}
    settings = {"snapshot": {"epoch": 1, "models": {"demo": model}}}
    with GatewayProcess(settings, tmp_path_factory.mktemp("plain")) as process:
        yield process


def _body(path: str, more: dict[str, Any], *, is_stream: bool) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt": "Sort these words: pear apple fig\n"}
    if path == CHAT:
        prompt = {"messages": [{"role": "user", "content": "Sort these words: pear apple fig"}]}
    body = {"model": "demo", "temperature": 0, "max_tokens": 16, **prompt, **more}
    if not is_stream:
        body.pop("stream_options", None)
    return {**body, "stream": True} if is_stream else body


def _comparable(response: RawResponse) -> tuple[Any, ...]:
    ignored = ("x-request-id", "date", "content-length")
    headers = [line for line in response.headers if line[0] not in ignored]
    body = BYTES.sub(rb'"\1":0', response.body)
    seen: Any = _joined(body) if response.framing == "chunked" else body
    return response.status, response.framing, headers, seen


def _joined(body: bytes) -> tuple[Any, ...]:
    """A stream without its cuts: the kinds of its events, and what each choice says in all."""
    *events, rest = body.split(b"\n\n")
    assert rest == b""
    kinds: set[bytes] = set()
    said: dict[Any, list[Any]] = {}
    for data in events:
        value = None if data == b"data: [DONE]" else json.loads(data.removeprefix(b"data: "))
        for choice in (value or {}).get("choices", ()):
            _collect(said.setdefault(choice["index"], []), choice)
        kinds.add(re.sub(rb"\d+", b"0", data if value is None else json.dumps(value).encode()))
    texts = {
        index: "".join(x for x in words if isinstance(x, str)) for index, words in said.items()
    }
    rows = {index: [x for x in words if not isinstance(x, str)] for index, words in said.items()}
    return kinds, texts, rows, events[0][:6], events[-1]


def _collect(said: list[Any], choice: dict[str, Any]) -> None:
    """Take words, token ids and log-probabilities out of an event."""
    for holder, name in ((choice.get("delta") or {}, "content"), (choice, "text")):
        if isinstance(holder.get(name), str):  # empty: the token's character is not complete yet
            said.append(holder[name])
            holder[name] = "words"
    if isinstance(choice.get("token_ids"), list):
        said += choice["token_ids"]
        choice["token_ids"] = "ids"
    rows = choice.get("logprobs")
    if isinstance(rows, dict):
        columns = zip(*(rows[name] for name in sorted(rows)), strict=True)
        said += [list(row) for row in columns]
        choice["logprobs"] = sorted(rows)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", CASES)
def test_a_tap_changes_no_byte_of_the_clients_answer(
    case: str,
    is_stream: bool,
    gateway: GatewayProcess,
    plain_gateway: GatewayProcess,
    sink: FrameSink,
) -> None:
    path, more = CASES[case]
    body = _body(path, more, is_stream=is_stream)
    plain_gateway.post(path, body)  # so that both find the prefix cached
    sink.forget()
    before = gateway.metric("penumbra_mirrored_requests_total")

    answers = [each.post(path, body) for each in (gateway, plain_gateway)]

    assert _comparable(answers[0]) == _comparable(answers[1])
    if case in FAILING:
        assert answers[0].status == 400
        return
    assert answers[0].status == 200, answers[0].body
    if case in UNTAPPED:
        assert gateway.metric("penumbra_mirrored_requests_total") == before
        return
    (frame,) = sink.wait_for(1)
    assert frame.is_stream is is_stream
    assert_token_ids(frame.answer, answers[0], is_stream=is_stream)


def assert_token_ids(raw: bytes, shown: RawResponse, *, is_stream: bool) -> None:
    """The engine's answer has as many token ids as it says, and the client's has none."""
    found = [json.loads(each) for each in re.findall(rb'"token_ids":(\[[0-9,]*\])', raw)]
    assert list(itertools.chain.from_iterable(found))
    assert re.search(rb'"prompt_token_ids":\[\d', raw)
    assert not re.search(rb'token_ids":\[', shown.body)
    if not is_stream:
        assert sum(map(len, found)) == shown.json()["usage"]["completion_tokens"]


RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
ASKED = "Sort these words: pear apple fig"
RESPONSE_TOOL = {"type": "function", **TOOLS[0]["function"]}
OTHER_ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "response": (RESPONSES, {"input": ASKED}),
    "response-greek": (RESPONSES, {"input": GREEK + ' "output_messages":[', "store": False}),
    "response-tools": (
        RESPONSES,
        {"input": ASKED, "tools": [RESPONSE_TOOL], "tool_choice": "none"},
    ),
    "response-own-wish": (RESPONSES, {"input": ASKED, "enable_response_messages": True}),
    "message": (MESSAGES, {"messages": [{"role": "user", "content": ASKED}]}),
}
NAMES = re.compile(rb'"(id|item_id|created_at)":("[^"]*"|\d+)')


def _said(body: bytes) -> tuple[str, bytes]:
    """The joined text of a stream, for no two streams are cut alike, and its last event."""
    *_, last, rest = body.split(b"\n\n")
    assert rest == b""
    deltas = (json.loads(each).get("delta") for each in re.findall(rb"data: (\{.*\})", body))
    texts = [each if isinstance(each, str) else (each or {}).get("text") for each in deltas]
    return "".join(text for text in texts if text), re.sub(rb'"sequence_number":\d+', b"", last)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", OTHER_ROUTES)
def test_a_tap_changes_no_byte_of_a_response_or_a_message(
    case: str,
    is_stream: bool,
    gateway: GatewayProcess,
    plain_gateway: GatewayProcess,
    sink: FrameSink,
) -> None:
    path, more = OTHER_ROUTES[case]
    limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
    body = {"model": "demo", "temperature": 0, limit: 16, **more, "stream": is_stream}
    plain_gateway.post(path, body)  # so that both find the prefix cached
    sink.forget()
    answers = [each.post(path, body) for each in (gateway, plain_gateway)]
    assert [answer.status for answer in answers] == [200, 200]
    seen = [NAMES.sub(rb'"\1":0', answer.body) for answer in answers]
    if is_stream:
        assert _said(seen[0]) == _said(seen[1])
    else:
        assert seen[0] == seen[1]
    if case == "response-own-wish":
        assert b'"output_messages":[' in answers[0].body
        return
    (frame,) = sink.wait_for(1)
    found = read_case(frame, 1024)
    assert isinstance(found, Case)
    # The engine's own count; of a message it tells no ids.
    assert found.tokens == (found.answer.completion_tokens if path == RESPONSES else 0)
    assert b'_messages":[' not in answers[0].body
