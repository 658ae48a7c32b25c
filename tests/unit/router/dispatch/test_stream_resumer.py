"""A continuation over a fake baseline: what it is asked, what the client gets, and when."""

import asyncio
import json
from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch import arriving_stream, token_count
from penumbra.router.upstream.fake import (
    EVENTS,
    Body,
    End,
    Fail,
    Hang,
    Head,
    Script,
    events,
    whole,
)
from tests.support.resumed import ASKED, ROLE, USAGE, Resumed, rest
from tests.support.stream_events import delta, stream, text


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_count, "COUNT_SECONDS", 0.05)


async def test_the_rest_follows() -> None:
    run = Resumed(
        stream(ROLE, delta(content="ab")), events(ROLE, delta(content="c"), delta("stop"))
    )
    broken = await run.to_end()
    assert (broken.text, broken.ended, broken.events[-1]) == ("c", "finished", b"data: [DONE]\n\n")
    assert run.ended(Outcome.OK) == 1
    assert run.resumer.progressed_at == 5.0


@pytest.mark.parametrize(
    ("count", "usage"),
    [
        (whole({"count": 10, "tokens": []}), (10, 5)),
        (whole({"count": 10}, status=500), (11, 4)),
        (whole({"detail": "Not Found"}, status=404), (11, 4)),
        (whole({"count": "x"}), (11, 4)),
        (whole({"count": None}), (11, 4)),
        (whole({"count": 0}), (11, 4)),
        (whole({"count": -5}), (11, 4)),
        (whole({"count": True}), (11, 4)),
        (whole({"count": 10.5}), (11, 4)),
        (whole([1]), (11, 4)),
        (whole("x"), (11, 4)),
        ([Head(), Body(b"<html>"), End()], (11, 4)),
        ([Head(), Body(b"\xff"), End()], (11, 4)),
        ([Fail(Outcome.REFUSED)], (11, 4)),
        ([Head(), Body(b'{"count": 1'), Fail(Outcome.DIED)], (11, 4)),
        ([Hang()], (11, 4)),
        ([Head(), Hang()], (11, 4)),
    ],
)
async def test_usage_does_not_cost_the_answer(count: Script, usage: tuple[int, int]) -> None:
    run = Resumed(stream(ROLE, delta(content="ab")), rest("c"), count=count, body=ASKED)
    broken = await run.to_end()
    assert (broken.text, broken.ended, broken.events[-1]) == ("c", "finished", b"data: [DONE]\n\n")
    assert (broken.usage["prompt_tokens"], broken.usage["completion_tokens"]) == usage
    assert run.ended(Outcome.OK) == 1


async def test_text_goes_on_before_the_tokens_are_counted() -> None:
    begun = [*events(ROLE, delta(content="c"), is_done=False), Hang()]
    run = Resumed(stream(ROLE, delta(content="ab")), begun, count=[Hang()], body=ASKED)
    run.resumer.start()
    for _ in range(20):  # turns of the loop
        await asyncio.sleep(0)
    assert run.broken.text == "c"
    run.resumer.abort()
    await asyncio.sleep(0.01)
    assert all(stream.is_aborted for stream in run.upstream.streams)


async def test_a_limit_waits_for_the_count_and_not_for_long() -> None:
    run = Resumed(
        stream(ROLE, delta(content="a b")), rest("c"), count=[Hang()], body={"max_tokens": 9}
    )
    await run.to_end()
    assert run.asked[0]["max_tokens"] == 8


async def test_a_build_that_does_not_count_is_not_asked_again() -> None:
    run = Resumed(
        stream(ROLE, delta(content="Hello")),
        rest(" everyone"),
        rest("!"),
        count=[Hang()],
        body={"max_tokens": 9, "stop": ["x" * 9], **ASKED},
    )
    assert (await run.to_end()).text == "!"
    counts = [request for request in run.upstream.requests if request.path == b"/tokenize"]
    assert len(counts) == 2  # of the prompt, with the text and without


async def test_answer_that_breaks_while_its_usage_waits_is_given_up() -> None:
    broken_rest = [*events(ROLE, delta(content="c"), USAGE, is_done=False), Fail(Outcome.DIED)]
    run = Resumed(stream(ROLE, delta(content="ab")), broken_rest, count=[Hang()], body=ASKED)
    broken = await run.to_end()
    assert (broken.text, broken.ended) == ("c", "given up")
    assert run.ended(Outcome.DIED) == 1


async def test_continuation_that_only_lacks_its_end_is_complete() -> None:
    complete = [*events(ROLE, delta(content="c"), delta("stop"), is_done=False), End()]
    run = Resumed(stream(ROLE, delta(content="ab")), complete)
    broken = await run.to_end()
    assert (broken.text, broken.ended, broken.events[-1]) == ("c", "finished", b"data: [DONE]\n\n")
    assert run.ended(Outcome.OK) == 1


# A request for the rest that does not arrive


PAGE: Script = [Head(503, ((b"content-type", b"text/html"),)), Body(b"<html>no server"), End()]


@pytest.mark.parametrize(
    ("lost", "outcome"),
    [
        ([Fail(Outcome.REFUSED)], Outcome.REFUSED),
        ([Fail(Outcome.GATEWAY_LIMIT)], Outcome.GATEWAY_LIMIT),
        (PAGE, Outcome.REFUSED),
        ([Head(503), End()], Outcome.REFUSED),
    ],
)
async def test_request_that_no_engine_has_seen_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, lost: Script, outcome: Outcome
) -> None:
    monkeypatch.setattr(arriving_stream, "PAUSES", (0.0, 0.0))
    run = Resumed(stream(ROLE, delta(content="ab")), lost, lost, rest("c"))
    broken = await run.to_end()
    assert (broken.text, broken.ended) == ("c", "finished")
    assert (run.ended(outcome), run.ended(Outcome.OK)) == (2, 1)
    assert len({json.dumps(asked) for asked in run.asked}) == 1


async def test_request_that_never_arrives_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving_stream, "PAUSES", (0.0, 0.0))
    run = Resumed(stream(ROLE, delta(content="ab")), *[[Fail(Outcome.REFUSED)]] * 9)
    assert (await run.to_end()).ended == "given up"
    assert (run.ended(Outcome.REFUSED), len(run.asked)) == (3, 3)


@pytest.mark.parametrize(
    "lost",
    [
        [Fail(Outcome.REFUSED, was_sent=True)],
        [Head(502, ((b"content-type", b"text/html"),)), Body(b"<html>bad gateway"), End()],
        [Head(200, tuple(EVENTS)), Fail(Outcome.DIED)],
        whole({"error": {"message": "the engine is dead"}}, status=503),
    ],
)
async def test_request_that_an_engine_may_have_seen_is_sent_once(lost: Script) -> None:
    run = Resumed(stream(ROLE, delta(content="ab")), lost, rest("c"))
    assert (await run.to_end()).ended == "given up"
    assert len(run.asked) == 1


async def test_client_that_leaves_ends_the_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving_stream, "PAUSES", (0.01,) * 9)
    run = Resumed(stream(ROLE, delta(content="ab")), *[[Fail(Outcome.REFUSED)]] * 9)
    run.resumer.start()
    await asyncio.sleep(0.005)
    run.resumer.abort()
    await asyncio.sleep(0.05)
    assert (len(run.asked), run.broken.ended) == (1, None)


# A baseline that does not make the end of the text again


async def test_text_that_is_not_made_again_is_gone_on_from() -> None:
    sent = stream(ROLE, delta(content="Hello"), delta(content=" wo"))
    stops = {"stop": ["x" * 9], "max_tokens": 30}
    run = Resumed(sent, rest(" everyone"), rest("rld"), body=stops)
    broken = await run.to_end()
    assert broken.text == "rld"
    first, second = run.asked
    assert first["messages"][-1]["role"] == "user"
    assert second["messages"][-1] == {"role": "assistant", "content": "Hello wo"}
    assert (first["max_tokens"], second["max_tokens"]) == (30, 28)
    assert run.ended(Outcome.OK) == 1
    assert run.upstream.streams[-2].is_aborted or run.upstream.streams[0].is_aborted


async def test_other_text_beside_running_usage_is_not_told() -> None:
    def counted(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "usage": {"prompt_tokens": 12, "completion_tokens": 1}}

    wrong = [counted(delta(content=word)) for word in ("Other", " words")]
    run = Resumed(
        stream(ROLE, delta(content="Hello")),
        events(ROLE, *wrong),
        rest("!"),
        body={"stop": ["x" * 9], **ASKED},
    )
    assert (await run.to_end()).text == "!"


async def test_white_space_of_a_text_completion_is_gone_on_from_as_well() -> None:
    run = Resumed(
        stream(text("\n")),
        events(text("Hello")),
        events(text("x")),
        body={"prompt": "hi", "stop": ["y" * 9]},
        path=b"/v1/completions",
    )
    await run.to_end()
    assert [asked["prompt"] for asked in run.asked] == ["hi", "hi\n"]


async def test_baseline_that_refuses_the_shorter_text_is_asked_with_all_of_it() -> None:
    sent = stream(ROLE, delta(content="Hello"))
    refusal = whole({"error": {"message": "no"}}, status=400)
    run = Resumed(sent, refusal, rest("!"), body={"stop": ["xxx"]})
    assert (await run.to_end()).text == "!"
    assert len(run.asked) == 2
    assert run.ended(Outcome.SERVER_ERROR) == 0


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_baseline_that_refuses_it_again_gives_up(status: int) -> None:
    refusal = whole({"error": {"message": "no"}}, status=status)
    run = Resumed(stream(ROLE, delta(content="Hello")), refusal, refusal, body={"stop": ["xxx"]})
    assert (await run.to_end()).ended == "given up"
    assert run.ended(Outcome.SERVER_ERROR) == 1
    assert len(run.asked) == (2 if status < 500 else 1)


async def test_white_space_alone_asks_the_same_again_and_once() -> None:
    run = Resumed(stream(ROLE, delta(content="\n\n")), rest("\nHello"))
    assert (await run.to_end()).text == "Hello"
    (asked,) = run.asked
    assert [message["role"] for message in asked["messages"]] == ["user"]
