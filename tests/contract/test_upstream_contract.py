"""One suite for the `Upstream` port, run on every implementation."""

import asyncio
import contextlib

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.calls import UpstreamError, fetch
from penumbra.router.upstream.fake import Body, Fail, Hang, Head, Script, events, whole
from penumbra.router.upstream.port import AttemptBudget, Upstream, UpstreamRequest
from tests.support.recorder import Recorder
from tests.support.upstreams import Make


def asked(budget: AttemptBudget | None = None) -> UpstreamRequest:
    headers = b"content-type: application/json\r\n"
    return UpstreamRequest(
        b"/v1/chat/completions", headers, b"{}", budget=budget or AttemptBudget()
    )


async def test_stream_pushes_head_then_body_then_end(make: Make) -> None:
    async with make(lambda _: events({"a": 1}, {"b": 2})) as upstream:
        recorder = Recorder()
        upstream.stream(asked(), recorder)
        await recorder.over.wait()
    assert recorder.calls[0] == "head"
    assert recorder.calls[-1] == "end"
    assert set(recorder.calls[1:-1]) == {"body"}
    assert recorder.status == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in recorder.headers
    assert recorder.body == b'data: {"a": 1}\n\ndata: {"b": 2}\n\ndata: [DONE]\n\n'


async def test_stream_sends_the_body_byte_for_byte(make: Make) -> None:
    seen: list[UpstreamRequest] = []

    def answer(request: UpstreamRequest) -> Script:
        seen.append(request)
        return whole({})

    body = '{"é": "\\u00e9  "}\n'.encode()
    async with make(answer) as upstream:
        await fetch(upstream, UpstreamRequest(b"/v1/x?y=1", b"", body))
    assert (seen[0].body, seen[0].path, seen[0].method) == (body, b"/v1/x?y=1", b"POST")


async def test_stream_tells_nothing_before_it_has_returned(make: Make) -> None:
    async with make(lambda _: whole({})) as upstream:
        recorder = Recorder()
        upstream.stream(asked(), recorder)
        assert recorder.calls == []
        await recorder.over.wait()


async def test_a_broken_answer_fails_once_and_last(make: Make) -> None:
    steps = (Head(), Body(b"half"), Fail(Outcome.DIED))
    async with make(lambda _: steps) as upstream:
        recorder = Recorder()
        upstream.stream(asked(), recorder)
        await recorder.over.wait()
    assert recorder.calls == ["head", "body", "fail"]
    assert recorder.outcome is Outcome.DIED


async def test_a_connection_closed_before_the_head_is_refused(make: Make) -> None:
    async with make(lambda _: (Fail(Outcome.REFUSED, was_sent=True),)) as upstream:
        recorder = Recorder()
        upstream.stream(asked(), recorder)
        await recorder.over.wait()
    assert recorder.calls == ["fail"]
    assert recorder.outcome is Outcome.REFUSED


async def test_abort_silences_the_stream(make: Make) -> None:
    async with make(lambda _: [Head(), Body(b"x"), Hang()]) as upstream:
        recorder = Recorder()
        stream = upstream.stream(asked(), recorder)
        await recorder.began.wait()
        stream.abort()
        stream.abort()
        told = len(recorder.calls)
        await fetch_health(upstream)
        assert len(recorder.calls) == told


async def fetch_health(upstream: Upstream) -> None:
    with contextlib.suppress(UpstreamError):
        await fetch(upstream, UpstreamRequest(b"/health", b"", b"", b"GET"), timeout_seconds=0.2)


async def test_pause_holds_the_body_until_resume(make: Make) -> None:
    async with make(lambda _: events(*({"n": n} for n in range(50)))) as upstream:
        recorder = Recorder()
        stream = upstream.stream(asked(), recorder)
        await recorder.began.wait()
        stream.pause()
        await asyncio.sleep(0.02)
        held = recorder.body
        await asyncio.sleep(0.02)
        assert recorder.body == held
        stream.resume()
        await recorder.over.wait()
    assert recorder.body.endswith(b"data: [DONE]\n\n")


async def test_health_is_true_for_200_and_false_otherwise(make: Make) -> None:
    async with make(None) as upstream:
        assert await upstream.health()
    async with make(lambda _: whole({}, status=503)) as upstream:
        assert not await upstream.health()
    async with make(lambda _: (Fail(Outcome.REFUSED),)) as upstream:
        assert not await upstream.health()


async def test_fetch_gives_up_at_its_limits(make: Make) -> None:
    async with make(lambda _: [Hang()]) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream, asked(), timeout_seconds=0.05)
        assert caught.value.outcome is Outcome.TIMEOUT
    async with make(lambda _: whole("x" * 100)) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream, asked(), limit_bytes=10)
        assert caught.value.outcome is Outcome.GARBAGE


async def test_a_send_takes_one_of_the_budget(make: Make) -> None:
    budget = AttemptBudget()
    async with make(lambda _: whole({})) as upstream:
        for left in (1, 0):
            recorder = Recorder()
            stream = upstream.stream(asked(budget), recorder)
            await recorder.over.wait()
            assert (budget.left, stream.was_sent, recorder.outcome) == (left, True, None)


async def test_nothing_is_sent_without_a_budget(make: Make) -> None:
    seen: list[UpstreamRequest] = []

    def answer(request: UpstreamRequest) -> Script:
        seen.append(request)
        return whole({})

    budget = AttemptBudget(left=0)
    async with make(answer) as upstream:
        recorder = Recorder()
        stream = upstream.stream(asked(budget), recorder)
        assert recorder.calls == []
        await recorder.over.wait()
    assert (recorder.outcome, stream.was_sent, budget.left) == (Outcome.REFUSED, False, 0)
    assert seen == []


async def test_a_server_that_closes_without_an_answer_was_sent_the_request(make: Make) -> None:
    budget = AttemptBudget()
    async with make(lambda _: (Fail(Outcome.REFUSED, was_sent=True),)) as upstream:
        recorder = Recorder()
        stream = upstream.stream(asked(budget), recorder)
        await recorder.over.wait()
    assert (recorder.outcome, stream.was_sent, stream.was_reused) == (Outcome.REFUSED, True, False)
    assert budget.left == 1
