"""One suite for the `Upstream` port, run on every implementation."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable

import pytest

from monitoring.vocabulary import Outcome
from router.ports import Headers, Upstream, UpstreamRequest
from router.testing import Body, Fail, FakeUpstream, Hang, Head, Script, events, whole
from router.upstream_http import HttpUpstream
from router.upstream_probe import NotFinite, UpstreamError, fetch
from tests.support.script_server import Answer, script_server

Make = Callable[..., contextlib.AbstractAsyncContextManager[Upstream]]
REQUEST = UpstreamRequest(b"/v1/chat/completions", b"content-type: application/json\r\n", b"{}")


@contextlib.asynccontextmanager
async def fake_upstream(answer: Answer | None = None) -> AsyncIterator[Upstream]:
    yield FakeUpstream("demo", answer)


@contextlib.asynccontextmanager
async def http_upstream(answer: Answer | None = None) -> AsyncIterator[Upstream]:
    async with script_server(answer) as url:
        upstream = HttpUpstream("demo", url)
        try:
            yield upstream
        finally:
            upstream.close()


@pytest.fixture(params=[fake_upstream, http_upstream], ids=["fake", "http"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


class Recorder:
    """A receiver that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.outcome: Outcome | None = None
        self.over = asyncio.Event()
        self.began = asyncio.Event()

    def on_head(self, status: int, headers: Headers) -> None:
        self.calls.append("head")
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        self.calls.append("body")
        self.body += data
        self.began.set()

    def on_end(self) -> None:
        self.calls.append("end")
        self.over.set()

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        self.calls.append("fail")
        self.outcome = outcome
        self.over.set()


async def test_stream_pushes_head_then_body_then_end(make: Make) -> None:
    async with make(lambda _: events({"a": 1}, {"b": 2})) as upstream:
        recorder = Recorder()
        upstream.stream(REQUEST, recorder)
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
        upstream.stream(REQUEST, recorder)
        assert recorder.calls == []
        await recorder.over.wait()


async def test_a_broken_answer_fails_once_and_last(make: Make) -> None:
    steps = (Head(), Body(b"half"), Fail(Outcome.DIED))
    async with make(lambda _: steps) as upstream:
        recorder = Recorder()
        upstream.stream(REQUEST, recorder)
        await recorder.over.wait()
    assert recorder.calls == ["head", "body", "fail"]
    assert recorder.outcome is Outcome.DIED


async def test_a_connection_closed_before_the_head_is_refused(make: Make) -> None:
    async with make(lambda _: (Fail(Outcome.REFUSED),)) as upstream:
        recorder = Recorder()
        upstream.stream(REQUEST, recorder)
        await recorder.over.wait()
    assert recorder.calls == ["fail"]
    assert recorder.outcome is Outcome.REFUSED


async def test_abort_silences_the_stream(make: Make) -> None:
    async with make(lambda _: [Head(), Body(b"x"), Hang()]) as upstream:
        recorder = Recorder()
        stream = upstream.stream(REQUEST, recorder)
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
        stream = upstream.stream(REQUEST, recorder)
        await recorder.began.wait()
        stream.pause()
        await asyncio.sleep(0.02)
        held = recorder.body
        await asyncio.sleep(0.02)
        assert recorder.body == held
        stream.resume()
        await recorder.over.wait()
    assert recorder.body.endswith(b"data: [DONE]\n\n")


async def test_score_gives_one_log_probability_and_one_choice_a_token(make: Make) -> None:
    async with make(None) as upstream:
        scores = await upstream.score([5, 6, 7, 8], 2)
        longer = await upstream.score((5, 6, 7, 8), 1)
    assert len(scores.logprobs) == len(scores.top_ids) == 2
    assert all(logprob <= 0 for logprob in scores.logprobs)
    assert longer.logprobs[1:] == scores.logprobs
    assert longer.top_ids[1:] == scores.top_ids


@pytest.mark.parametrize(
    ("row", "logprob", "top_id"),
    [
        ({"2": {"logprob": -0.5, "rank": 1}}, -0.5, 2),
        ({"2": {"logprob": -3.0, "rank": 7}, "9": {"logprob": -0.1, "rank": 1}}, -3.0, 9),
        ({"2": {"logprob": -3.0}, "9": {"logprob": -0.1}}, -3.0, 9),
        ({"2": {"logprob": -0.7}, "9": {"logprob": -0.7}}, -0.7, 2),
    ],
    ids=["chosen", "ranked", "likeliest", "tie"],
)
async def test_score_reads_the_token_and_the_greedy_choice(
    make: Make, row: object, logprob: float, top_id: int
) -> None:
    answer = {"choices": [{"prompt_logprobs": [None, row]}]}
    async with make(lambda _: whole(answer)) as upstream:
        scores = await upstream.score([1, 2], 1)
    assert (scores.logprobs, scores.top_ids) == ((logprob,), (top_id,))


@pytest.mark.parametrize("written", [None, -9999.0], ids=["NaN", "minus infinity"])
async def test_score_tells_a_log_probability_that_is_none(
    make: Make, written: float | None
) -> None:
    answer = {"choices": [{"prompt_logprobs": [None, {"2": {"logprob": written, "rank": 1}}]}]}
    async with make(lambda _: whole(answer)) as upstream:
        scores = await upstream.score([1, 2], 1)
    assert not math.isfinite(scores.logprobs[0])


async def test_score_tells_an_engine_that_cannot_write_its_numbers(make: Make) -> None:
    error = {"error": {"message": "Out of range float values are not JSON compliant: nan"}}
    async with make(lambda _: whole(error, status=500)) as upstream:
        with pytest.raises(NotFinite):
            await upstream.score([1, 2], 1)


@pytest.mark.parametrize("start", [0, 4, -1])
async def test_score_refuses_a_start_outside_the_tokens(make: Make, start: int) -> None:
    async with make(None) as upstream:
        with pytest.raises(ValueError, match="start"):
            await upstream.score([5, 6, 7, 8], start)


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"prompt_logprobs": None},
        {"prompt_logprobs": [None]},
        {"prompt_logprobs": [None, None]},
        {"prompt_logprobs": [None, {"3": {"logprob": -1.0}}]},
        {"prompt_logprobs": [None, {"2": {"logprob": "x"}}]},
    ],
    ids=["absent", "null", "short", "empty row", "another token", "no number"],
)
async def test_score_without_log_probabilities_is_an_error(make: Make, choice: object) -> None:
    async with make(lambda _: whole({"choices": [choice]})) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await upstream.score([1, 2], 1)
    assert caught.value.outcome is Outcome.GARBAGE


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, Outcome.CLIENT_ERROR), (503, Outcome.SERVER_ERROR)]
)
async def test_score_tells_a_refusal_from_a_failure(
    make: Make, status: int, outcome: Outcome
) -> None:
    async with make(lambda _: whole({}, status=status)) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await upstream.score([1, 2], 1)
    assert caught.value.outcome is outcome


async def test_health_is_true_for_200_and_false_otherwise(make: Make) -> None:
    async with make(None) as upstream:
        assert await upstream.health()
    async with make(lambda _: whole({}, status=503)) as upstream:
        assert not await upstream.health()
    async with make(lambda _: (Fail(Outcome.REFUSED),)) as upstream:
        assert not await upstream.health()


async def test_fingerprint_changes_with_what_the_server_says(make: Make) -> None:
    async with make(None) as upstream:
        first, again = await upstream.fingerprint(), await upstream.fingerprint()

    def other(request: UpstreamRequest) -> Script:
        if request.path == b"/version":
            return whole({"version": "fake-2"})
        return whole({"data": [{"id": "demo"}]})

    async with make(other) as upstream:
        changed = await upstream.fingerprint()
    assert first == again != changed
    assert len(first) == 64


async def test_fetch_gives_up_at_its_limits(make: Make) -> None:
    async with make(lambda _: [Hang()]) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream, REQUEST, timeout_seconds=0.05)
        assert caught.value.outcome is Outcome.TIMEOUT
    async with make(lambda _: whole("x" * 100)) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await fetch(upstream, REQUEST, limit_bytes=10)
        assert caught.value.outcome is Outcome.GARBAGE
