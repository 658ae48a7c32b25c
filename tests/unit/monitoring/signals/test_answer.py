import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penumbra.monitoring.signals.answer import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    Answer,
    Choice,
    ToolCall,
    read_answer,
)

# As vLLM 0.32 writes them, ids and times aside.
CHAT = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"demo","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"pasu","refusal":null,"annotations":null,"audio":null,'
    b'"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"stop",'
    b'"stop_reason":null,"token_ids":[112,97,115,117,2],"routed_experts":null}],"service_tier":null,'
    b'"system_fingerprint":null,"usage":{"prompt_tokens":3,"total_tokens":8,"completion_tokens":5,'
    b'"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":[3,83,4],'
    b'"prompt_text":null,"kv_transfer_params":null}'
)
CHAT_STREAM = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"demo",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
    b'"finish_reason":null}],"prompt_token_ids":[3,83,4],"prompt_text":null}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"demo",'
    b'"choices":[{"index":0,"delta":{"content":"pa"},"logprobs":null,"finish_reason":null,'
    b'"token_ids":[112,97]}]}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"demo",'
    b'"choices":[{"index":0,"delta":{"content":"su"},"logprobs":null,"finish_reason":"stop",'
    b'"stop_reason":null,"token_ids":[115,117,2]}]}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"demo",'
    b'"choices":[],"usage":{"prompt_tokens":3,"total_tokens":8,"completion_tokens":5}}\n\n'
    b"data: [DONE]\n\n"
)
COMPLETION = (
    b'{"id":"cmpl-1","object":"text_completion","created":1,"model":"demo","choices":[{"index":0,'
    b'"text":"pasu","logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":'
    b'[112,97,115,117],"prompt_logprobs":null,"prompt_token_ids":[3,83]},{"index":1,"text":"to",'
    b'"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":[116,111],'
    b'"prompt_logprobs":null,"prompt_token_ids":[3,84]}],"usage":{"prompt_tokens":4,'
    b'"total_tokens":10,"completion_tokens":6,"prompt_tokens_details":null}}'
)
COMPLETION_STREAM = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"demo","choices":['
    b'{"index":1,"text":"t","logprobs":null,"finish_reason":null,"stop_reason":null,'
    b'"prompt_token_ids":[3,84],"token_ids":[116]}]}\n\n'
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"demo","choices":['
    b'{"index":0,"text":"pas","logprobs":null,"finish_reason":null,"stop_reason":null,'
    b'"prompt_token_ids":[3,83],"token_ids":[112,97,115]}]}\n\n'
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"demo","choices":['
    b'{"index":1,"text":"o","logprobs":null,"finish_reason":"stop","stop_reason":null,'
    b'"token_ids":[111]}]}\n\n'
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"demo","choices":['
    b'{"index":0,"text":"u","logprobs":null,"finish_reason":"length","stop_reason":null,'
    b'"token_ids":[117]}]}\n\n'
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"demo","choices":[],'
    b'"usage":{"prompt_tokens":4,"total_tokens":10,"completion_tokens":6}}\n\n'
    b"data: [DONE]\n\n"
)
CHAT_ANSWER = Answer(
    (
        Choice(
            text="pasu",
            finish_reason="stop",
            prompt_token_ids=(3, 83, 4),
            token_ids=(112, 97, 115, 117, 2),
        ),
    ),
    completion_tokens=5,
)
COMPLETION_ANSWER = Answer(
    (
        Choice(0, "pasu", "", "", "length", (), (3, 83), (112, 97, 115, 117)),
        Choice(1, "to", "", "", "stop", (), (3, 84), (116, 111)),
    ),
    completion_tokens=6,
)


def events(*payloads: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(payload).encode() for payload in payloads)


def delta(index: int = 0, finish_reason: str | None = None, **message: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": message, "finish_reason": finish_reason}]}


def piece(index: int, name: str | None, arguments: str | None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "function": {k: v for k, v in function.items() if v is not None}}


@pytest.mark.parametrize(
    ("path", "is_stream", "raw", "answer"),
    [
        (CHAT_PATH, False, CHAT, CHAT_ANSWER),
        (CHAT_PATH, True, CHAT_STREAM, CHAT_ANSWER),
        (CHAT_PATH, True, CHAT_STREAM.replace(b"\n", b"\r\n"), CHAT_ANSWER),
        (COMPLETIONS_PATH, False, COMPLETION, COMPLETION_ANSWER),
        (COMPLETIONS_PATH, True, COMPLETION_STREAM, COMPLETION_ANSWER),
    ],
)
def test_an_answer_is_read(path: str, is_stream: bool, raw: bytes, answer: Answer) -> None:
    found = read_answer(path, is_stream=is_stream, raw=raw)
    assert found == answer
    assert found is not None
    assert found.is_complete


def test_the_prompt_of_a_chat_is_every_choice_s() -> None:
    raw = json.dumps(
        {
            "choices": [{"index": i, "message": {"content": str(i)}} for i in (1, 0)],
            "prompt_token_ids": [1, 2],
        }
    ).encode()
    found = read_answer(CHAT_PATH, is_stream=False, raw=raw)
    assert found is not None
    assert [(c.index, c.text, c.prompt_token_ids) for c in found.choices] == [
        (0, "0", (1, 2)),
        (1, "1", (1, 2)),
    ]


def test_tool_calls_are_put_together_by_their_index() -> None:
    raw = events(
        delta(role="assistant", content=""),
        delta(tool_calls=[{**piece(0, "weather", ""), "id": "call-a", "type": "function"}]),
        delta(tool_calls=[piece(0, None, '{"city"')]),
        delta(tool_calls=[piece(1, "time", "{"), piece(0, None, ': "Oslo"}')]),
        delta(tool_calls=[piece(1, None, "}")], finish_reason="tool_calls"),
    )
    found = read_answer(CHAT_PATH, is_stream=True, raw=raw)
    assert found is not None
    assert found.choices[0].tool_calls == (
        ToolCall("weather", '{"city": "Oslo"}'),
        ToolCall("time", "{}"),
    )
    assert found.is_complete


def test_tool_calls_of_a_whole_message_need_no_index() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in ("weather", "time")
    ]
    raw = json.dumps({"choices": [{"index": 0, "message": {"tool_calls": calls}}]}).encode()
    found = read_answer(CHAT_PATH, is_stream=False, raw=raw)
    assert found is not None
    assert [call.name for call in found.choices[0].tool_calls] == ["weather", "time"]


def test_a_name_that_is_repeated_with_each_piece_is_one_name() -> None:
    raw = events(delta(tool_calls=[piece(0, "f", "{")]), delta(tool_calls=[piece(0, "f", "}")]))
    found = read_answer(CHAT_PATH, is_stream=True, raw=raw)
    assert found is not None
    assert found.choices[0].tool_calls == (ToolCall("f", "{}"),)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_not_text(name: str) -> None:
    raw = events(delta(**{name: "hm"}), delta(content="42", finish_reason="stop"))
    found = read_answer(CHAT_PATH, is_stream=True, raw=raw)
    assert found is not None
    assert (found.choices[0].reasoning, found.choices[0].text) == ("hm", "42")


def test_a_refusal_is_kept() -> None:
    raw = json.dumps({"choices": [{"message": {"content": None, "refusal": "No."}}]}).encode()
    found = read_answer(CHAT_PATH, is_stream=False, raw=raw)
    assert found is not None
    assert found.choices[0].refusal == "No."


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b'data: {"choices":[{"index":0,"delta":{"con',
        b'data: {"error":{"message":"died","code":500}}\n\ndata: [DONE]\n\n',
        b"data: nonsense\n\ndata: [DONE]\n\n",
        b'data: {"choices":"none"}\n\ndata: [DONE]\n\n',
    ],
)
def test_a_stream_that_went_wrong_gives_what_came_before(tail: bytes) -> None:
    found = read_answer(CHAT_PATH, is_stream=True, raw=events(delta(content="so far")) + tail)
    assert found is not None
    assert found.choices[0].text == "so far"
    assert not found.is_complete


def test_an_error_after_the_finish_is_no_complete_answer() -> None:
    raw = events(delta(content="all", finish_reason="stop"), {"error": {"message": "late"}})
    found = read_answer(CHAT_PATH, is_stream=True, raw=raw)
    assert found is not None
    assert found.has_error
    assert not found.is_complete


def test_what_comes_after_the_end_of_a_stream_is_not_read() -> None:
    raw = CHAT_STREAM + events(delta(content="more"))
    assert read_answer(CHAT_PATH, is_stream=True, raw=raw) == CHAT_ANSWER


def test_an_error_that_is_null_is_none() -> None:
    raw = b'{"error":null,"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'
    found = read_answer(CHAT_PATH, is_stream=False, raw=raw)
    assert found is not None
    assert found.is_complete


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{"index":"first"}]}',
        b'{"error":{"message":"no","type":"BadRequestError","code":400}}',
        b'{"object":"error","message":"no","code":400}',
        b"<html>502</html>",
        b"[" * 100_000,
        b'{"choices":[{"text":"\xff"}]}',
        b"9" * 10_000,
    ],
)
def test_what_is_no_completion_is_none(raw: bytes) -> None:
    assert read_answer(COMPLETIONS_PATH, is_stream=False, raw=raw) is None
    assert read_answer(COMPLETIONS_PATH, is_stream=True, raw=b"data: " + raw + b"\n\n") is None


def test_the_answer_of_another_path_is_none() -> None:
    assert read_answer("/v1/embeddings", is_stream=False, raw=CHAT) is None


@given(st.binary(max_size=200), st.booleans())
@example(b"data:\n\ndata: {}\n\n", True)
def test_reading_is_total(raw: bytes, is_stream: bool) -> None:
    found = read_answer(CHAT_PATH, is_stream=is_stream, raw=raw)
    assert found is None or found.choices


@given(st.integers(0, len(CHAT_STREAM)), st.binary(max_size=5), st.booleans())
def test_reading_a_damaged_answer_is_total(at: int, damage: bytes, is_stream: bool) -> None:
    whole = CHAT_STREAM if is_stream else CHAT
    raw = whole[:at] + damage + whole[at + len(damage) :]
    found = read_answer(CHAT_PATH, is_stream=is_stream, raw=raw)
    assert found is None or found.choices


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=4), st.integers(0, 9)), min_size=1))
def test_a_stream_reads_as_the_same_answer_does_whole(pieces: list[tuple[int, str, int]]) -> None:
    stream = events(
        {"choices": [], "prompt_token_ids": [1]},
        *(
            {"choices": [{"index": i, "delta": {"content": text}, "token_ids": [token]}]}
            for i, text, token in pieces
        ),
        *(delta(index=i, finish_reason="stop") for i in {i for i, _, _ in pieces}),
    )
    choices = [
        {
            "index": i,
            "message": {"content": "".join(text for j, text, _ in pieces if j == i)},
            "token_ids": [token for j, _, token in pieces if j == i],
            "finish_reason": "stop",
        }
        for i in {i for i, _, _ in pieces}
    ]
    whole = json.dumps({"choices": choices, "prompt_token_ids": [1]}).encode()
    assert read_answer(CHAT_PATH, is_stream=True, raw=stream) == read_answer(
        CHAT_PATH, is_stream=False, raw=whole
    )
