"""A continuation that cannot be, or need not be: its client is told at once."""

import asyncio
import json
from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch import token_count
from penumbra.router.dispatch.continued_answer import is_continuable
from penumbra.router.upstream.fake import EVENTS, Body, Hang, Head, Script, whole
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.resumed import ASKED, CHAT, ROLE, Resumed, rest
from tests.support.stream_events import delta, stream


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_count, "COUNT_SECONDS", 0.05)


@pytest.mark.parametrize(
    "body",
    [{"n": 2}, {"tools": [{}]}, {"max_tokens": "many"}, {"stop": 5}, {"include_reasoning": False}],
)
async def test_request_that_cannot_be_continued_is_told_at_once(body: dict[str, Any]) -> None:
    run = Resumed(stream(ROLE, delta(content="ab")), body=body)
    assert (await run.to_end()).ended == "given up"
    assert run.upstream.requests == []


@pytest.mark.parametrize("sent", [b"data: oops\n\n", stream({"choices": ["x"]}), stream([1])])
async def test_odd_stream_is_told_at_once(sent: bytes) -> None:
    run = Resumed(sent)
    assert (await run.to_end()).ended == "given up"


async def test_complete_stream_of_another_kind_gets_its_end() -> None:
    run = Resumed(stream(ROLE, delta(reasoning="hm"), delta("stop")), body=ASKED)
    broken = await run.to_end()
    assert (broken.ended, broken.events) == ("finished", [b"data: [DONE]\n\n"])


@pytest.mark.parametrize("count", [[Hang()], whole({"count": 10})])
async def test_complete_stream_gets_its_usage_if_it_can_be_counted(count: Script) -> None:
    run = Resumed(stream(ROLE, delta(content="ab"), delta("stop")), count=count, body=ASKED)
    broken = await run.to_end()
    assert broken.ended == "finished"
    known = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    assert broken.usage == (None if isinstance(count, list) and count == [Hang()] else known)


async def test_stream_that_has_all_gets_nothing_more() -> None:
    run = Resumed(stream(ROLE, delta("stop")) + b"data: [DONE]\n\n")
    assert (await run.to_end()).events == []


@pytest.mark.parametrize(
    "answer",
    [
        b"data: oops\n\n",
        b'data: {"choices":"x"}\n\n',
        b'data: {"choices":{"a":1}}\n\n',
        b'data: {"choices":[{"delta":"x"}]}\n\n',
        b'data: {"choices":[{"delta":{"content":5}}]}\n\n',
        b"data: " + b"[" * 5000 + b"\n\n",
        b'data: {"error":{"message":"x"}}\r\n\r\n',
    ],
)
async def test_odd_continuation_is_told_at_once(answer: bytes) -> None:
    script = [Head(200, tuple(EVENTS)), Body(answer), Hang()]
    run = Resumed(stream(ROLE, delta(content="ab")), script)
    assert (await run.to_end()).ended == "given up"
    assert run.ended(Outcome.GARBAGE) == 1


async def test_continuation_in_small_pieces_with_other_line_ends_is_read() -> None:
    data = stream(delta(content="c"), delta("stop")).replace(b"\n", b"\r\n") + b"data: [DONE]\n\n"
    pieces = [Body(data[at : at + 1]) for at in range(len(data))]
    run = Resumed(stream(ROLE, delta(content="ab")), [Head(200, tuple(EVENTS)), *pieces])
    assert (await run.to_end()).text == "c"


async def test_comments_are_no_progress() -> None:
    script = [Head(200, tuple(EVENTS)), Body(b": ping\n\n"), Hang()]
    run = Resumed(stream(ROLE, delta(content="ab")), script)
    run.resumer.start()
    for _ in range(20):  # turns of the loop
        await asyncio.sleep(0)
    assert run.resumer.progressed_at < 0
    run.resumer.abort()


async def test_slow_client_pauses_the_continuation() -> None:
    run = Resumed(stream(ROLE, delta(content="ab")), rest("c"))
    run.resumer.pause()
    run.resumer.start()
    for _ in range(20):  # turns of the loop
        await asyncio.sleep(0)
    assert run.broken.events == []
    run.resumer.resume()
    await asyncio.wait_for(run.broken.over.wait(), 5)
    assert run.broken.text == "c"


@pytest.mark.parametrize(
    ("sent", "body", "is_one"),
    [
        (stream(ROLE, delta(content="a")), {}, True),
        (stream(ROLE, delta(content="a")), {"n": 2}, False),
        (stream(ROLE, delta(reasoning="a")), {}, False),
        (stream(ROLE, delta("stop")), {}, False),
        (b"data: oops\n\n", {}, False),
    ],
)
def test_stream_is_continuable(sent: bytes, body: dict[str, Any], is_one: bool) -> None:
    encoded = json.dumps({"messages": [], **body}).encode()
    assert is_continuable(UpstreamRequest(CHAT, b"", encoded), sent) is is_one
    assert not is_continuable(UpstreamRequest(b"/v1/responses", b"", encoded), sent)
