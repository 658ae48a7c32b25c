"""Answers of an engine with and without token ids, in any spelling of their JSON."""

import json
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

NO_BLANKS = ("",)
BLANKS = ("", "", " ", "  ", "\t")
BLANKS_AND_LINES = (*BLANKS, "\n", "\n  ", "\r\n", "\r\n\t")

LURES = (
    '"token_ids":[1,2]', ',"token_ids":[1]', '{"prompt_token_ids":[3]', '\\"token_ids\\":[1]',
    '"', "\\", '","token_ids":[7],"x":"', '"delta":{},"logprobs":null,"finish_reason":null,',
    'token_ids":[', "]", "},{", ', "token_ids" : [ 1 ]', ' "prompt_token_ids":\n[', "token_ids",
)  # fmt: skip
texts = st.lists(st.sampled_from(LURES) | st.text(max_size=6), max_size=5).map("".join)
seeds = st.integers(0, 2**32)


class Ids(list[int]):
    """Token ids, which an engine that was not asked for them writes as null."""


ids = st.lists(st.integers(0, 200_000), max_size=6).map(Ids)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """One answer, whole or the event of a stream."""
    call = {"name": draw(texts), "arguments": draw(texts)}
    message = {"content": draw(texts), "tool_calls": [{"id": draw(texts), "function": call}]}
    rows = {"tokens": [draw(texts)], "top_logprobs": [{draw(texts): -0.5, draw(texts): -1.0}]}
    choice = {"index": 0, "message": message, "logprobs": rows, "finish_reason": "stop"}
    return {
        "id": "x",
        "choices": [{**choice, "token_ids": draw(ids)}, {"token_ids": draw(ids), **choice}],
        "my_token_ids": [1, 2],
        "prompt_token_ids": draw(ids),
        "usage": {"prompt_tokens": 3},
    }


class Rows(dict[str, Any]):
    """Log-probabilities, which an engine that was not asked for them writes as null."""


chat_rows = st.lists(
    st.fixed_dictionaries(
        {
            "token": texts,
            "logprob": st.just(-0.5),
            "bytes": st.lists(st.integers(0, 255), max_size=3),
            "top_logprobs": st.lists(
                st.fixed_dictionaries({"token": texts, "bytes": st.just([1])}), max_size=1
            ),
        }
    ),
    max_size=3,
).map(lambda content: Rows(content=content))
completion_rows = st.lists(texts, max_size=3).map(
    lambda tokens: Rows(
        text_offset=[0 for _ in tokens],
        token_logprobs=[-0.5 for _ in tokens],
        tokens=tokens,
        top_logprobs=[{token: -0.5} for token in tokens],
    )
)


@st.composite
def decoded_answers(draw: st.DrawFn) -> dict[str, Any]:
    """One answer, whole or the event of a stream, whose log-probabilities were asked for."""

    def choice() -> dict[str, Any]:
        return {
            "index": 0,
            "message": {"content": draw(texts), "name": '"logprobs":{"content":[]}'},
            "logprobs": draw(chat_rows | completion_rows),
            "finish_reason": draw(st.sampled_from([None, "stop", "logprobs"])),
            "token_ids": draw(ids),
        }

    return {"id": draw(texts), "choices": [choice(), choice()], "prompt_logprobs": [{"1": {}}]}


@st.composite
def deltas(draw: st.DrawFn) -> dict[str, Any]:
    """One event of a chat stream; an empty delta without finish reason shows nothing."""
    choice = {
        "index": 0,
        "delta": draw(st.just({}) | st.builds(lambda text: {"content": text}, texts)),
        "logprobs": None,
        "finish_reason": draw(st.sampled_from([None, None, "stop"])),
        "token_ids": draw(ids),
    }
    return {"id": draw(texts), "choices": [choice]}


def is_silent(delta: dict[str, Any]) -> bool:
    """Whether an engine that is not asked for token ids sends no such event."""
    [choice] = delta["choices"]
    return not choice["delta"] and choice["finish_reason"] is None


def written(
    value: Any, seed: int, blanks: Sequence[str], *, has_ids: bool, has_rows: bool = True
) -> bytes:
    """Write JSON with blanks drawn by a seed: the same ones with token ids and without."""
    outside, inside = random.Random(seed), random.Random(seed + 1)

    def blank() -> str:
        return outside.choice(blanks)

    def gap() -> str:
        return inside.choice(blanks)

    separators = (",", ":") if blanks == NO_BLANKS else (", ", ": ")

    def write(value: Any) -> str:
        if isinstance(value, Ids):
            return f"[{','.join(f'{gap()}{each}{gap()}' for each in value)}]" if has_ids else "null"
        if isinstance(value, Rows):
            return (
                json.dumps(value, ensure_ascii=False, separators=separators) if has_rows else "null"
            )
        if isinstance(value, dict):
            members = (
                f"{blank()}{_text(name)}{blank()}:{blank()}{write(member)}{blank()}"
                for name, member in value.items()
            )
            return f"{{{','.join(members) or blank()}}}"
        if isinstance(value, list):
            return f"[{','.join(f'{blank()}{write(each)}{blank()}' for each in value)}]"
        return _text(value)

    return write(value).encode()


def as_event(data: bytes, line_end: bytes = b"\n", after_colon: bytes = b" ") -> bytes:
    """Make a server-sent event; each line of the JSON is a line of its own."""
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    return line_end.join([b"data:" + after_colon + line for line in lines]) + 2 * line_end


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
