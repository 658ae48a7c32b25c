"""Cost of judging an answer: linear in its bytes, whatever it holds."""

import time

import pytest

from penumbra.monitoring.signals.answer import CHAT_PATH, Choice, read_answer
from penumbra.monitoring.signals.harm import Answer, Expectations, expectations, judge

N = 200_000
MOST_CPU_SECONDS = 2.0
"""Some twenty times the slowest case; quadratic work on so much text takes minutes."""

HOSTILE = {
    "newlines": "\n" * N,
    "spaces": " " * N + "x",
    "backticks": "`" * N,
    "fences": "```python\n" * (N // 10),
    "empty blocks": "```python\n```\n" * (N // 14),
    "a block of newlines": "```python\n" + "\n" * 32_000 + "x\n```",
    "a block of spaces": "```python\n" + " " * 32_000 + "x\n```",
    "fences with spaces": ("```" + " " * 300 + "\n") * (N // 300),
    "many blocks": ("```python\n" + "x = (((1)))\n" * 50 + "```\n") * (N // 600),
    "brackets": "[" * N,
    "nested objects": '{"a":' * (N // 5),
    "numbers": "[" + "1," * (N // 2) + "1]",
    "digits": "1" * N,
    "escapes": '["' + "\\u1234" * (N // 6) + '"]',
    "a loop": "ab" * (N // 2),
    "nearly a loop": ("a" * 2000 + "b") * (N // 2001),
    "every letter": "".join(chr(0x4E00 + i % 20_000) for i in range(N)),
    "half a call": "<tool_call" * (N // 10),
    "apologies": "i'm sorry i can't " * (N // 18),
}
WANTED = {
    "text": Expectations(writing="latin", usual_chars=5.0),
    "json": Expectations(
        wants_json=True,
        schema=b'{"type":"array","items":{"type":"integer"},"uniqueItems":true}',
        tools={"now": None},
    ),
}
OTHER = Answer((Choice(text="It is so, and it was so.", finish_reason="stop"),))


@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_judging_takes_linear_time(text: str, wanted: Expectations) -> None:
    answer = Answer((Choice(text=text, finish_reason="stop"),))
    began = time.process_time()
    assert judge(wanted, answer, OTHER).harm in (-1, 0, 1)
    assert time.process_time() - began < MOST_CPU_SECONDS


@pytest.mark.parametrize(
    "raw",
    [b"\n" * N, b"data:" * (N // 5), b"data: {}\n\n" * (N // 10), b"data:\r\n" * (N // 7)],
)
def test_reading_takes_linear_time(raw: bytes) -> None:
    began = time.process_time()
    assert read_answer(CHAT_PATH, is_stream=True, raw=raw) is None
    assert expectations(CHAT_PATH, raw) == Expectations()
    assert time.process_time() - began < MOST_CPU_SECONDS
