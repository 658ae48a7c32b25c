"""Dispatch over fake upstreams: the answer that a client gets when builds misbehave."""

import asyncio
import json
from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.dispatch.plan import Plan
from penumbra.router.dispatch.request_shape import RequestShape
from penumbra.router.dispatch.response_buffer import BUFFER_LIMIT_BYTES
from penumbra.router.errors import GatewayError
from penumbra.router.metrics import GatewayMetrics
from penumbra.router.settings import LimitSettings
from penumbra.router.upstream.fake import (
    EVENTS,
    Body,
    End,
    Fail,
    FakeUpstream,
    Hang,
    Head,
    Script,
    events,
    whole,
)
from penumbra.router.upstream.port import Headers, UpstreamRequest
from tests.support.cells import attempts_of, cells_of
from tests.support.dispatching import ANY, services

GOOD = {"choices": [{"message": {"content": "good"}}]}
ERROR = {"error": {"message": "no", "type": "invalid_request_error", "code": 400}}


class RecordingClient:
    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.error: GatewayError | None = None
        self.is_broken = False
        self.is_finished = False
        self.repeats = 0
        self.over = asyncio.Event()
        self.began = asyncio.Event()

    def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.body, self.is_finished = status, body, True
        self.over.set()

    def send_head(self, status: int, headers: Headers) -> None:
        self.status = status

    def send_piece(self, data: bytes) -> None:
        assert data
        self.body += data
        self.began.set()

    def finish(self) -> None:
        self.is_finished = True
        self.over.set()

    def break_off(self) -> None:
        self.is_broken = True
        self.over.set()

    def send_error(self, error: GatewayError) -> None:
        assert not self.body
        self.error = error
        self.over.set()

    def note_first_data(self) -> None:
        assert self.status

    def count_repeat(self) -> None:
        self.repeats += 1

    def text(self) -> str:
        """All content of a chat stream."""
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events()
            for choice in event.get("choices", ())
        )

    def events(self) -> list[dict[str, Any]]:
        parts = self.body.split(b"\n\n")
        data = [part.removeprefix(b"data: ") for part in parts if part.startswith(b"data: {")]
        return [json.loads(part) for part in data]


class Run:
    """One dispatch over scripted variants; the scripts are used up one attempt at a time."""

    def __init__(
        self,
        candidate: list[Script] | None = None,
        baseline: list[Script] | None = None,
        *,
        body: dict[str, Any] | None = None,
        attempts: tuple[str, ...] = ("int8", "full", "full"),
        path: bytes = b"/v1/chat/completions",
        shape: RequestShape = ANY,
        probe: Script | None = None,
        repeated: Script | None = None,
    ) -> None:
        self.now = 0.0
        self.metrics = GatewayMetrics()
        self.client = RecordingClient()
        scripts = {"int8": iter(candidate or []), "full": iter(baseline or [])}
        self.upstreams = {
            name: FakeUpstream(
                "demo",
                lambda request, script=script: (
                    whole({"count": 10}) if request.path == b"/tokenize" else next(script)
                ),
            )
            for name, script in scripts.items()
        }
        built = {
            name: Attempt(name, upstream, cells_of(self.metrics, name))
            for name, upstream in self.upstreams.items()
        }
        chat = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        self.body = {**chat, **(body or {})}
        request = UpstreamRequest(path, b"", json.dumps(self.body).encode())
        asked = {
            b"/health": whole({}) if probe is None else probe,
            path: whole(GOOD) if repeated is None else repeated,
        }
        judged_by = FakeUpstream("demo", lambda request: asked[request.path])
        told = services(lambda: self.now, judged_by)
        self.dispatch = Dispatch(Plan(attempts, "full"), built, request, self.client, shape, told)

    async def to_end(self) -> RecordingClient:
        self.dispatch.start()
        await self.client.over.wait()
        return self.client

    def attempts(self, variant: str, outcome: Outcome) -> int:
        return attempts_of(self.metrics, variant, outcome)

    def failovers(self, variant: str, outcome: Outcome) -> int:
        return self.metrics.failovers.cell("demo", variant, outcome.value).value

    def sent_to(self, variant: str, index: int) -> dict[str, Any]:
        requests = [r for r in self.upstreams[variant].requests if r.path != b"/tokenize"]
        sent: dict[str, Any] = json.loads(requests[index].body)
        return sent


def chunk(content: str | None = None, **choice: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {
        "id": "c-1",
        "created": 7,
        "model": "demo",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}],
    }


ROLE = {
    "id": "c-1",
    "created": 7,
    "model": "demo",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
}


def other(event: dict[str, Any]) -> dict[str, Any]:
    """The same event as the baseline would name it."""
    return {**event, "id": "c-2", "created": 9}


async def test_a_whole_answer_passes_unchanged() -> None:
    client = await Run([whole(GOOD)]).to_end()
    assert client.status == 200
    assert json.loads(client.body) == GOOD


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([Fail(Outcome.REFUSED)], Outcome.REFUSED),
        ([Fail(Outcome.GARBAGE)], Outcome.GARBAGE),
        (whole(ERROR, status=500), Outcome.SERVER_ERROR),
        ([Head(), Body(b'{"half'), Fail(Outcome.DIED)], Outcome.DIED),
        ([Head(200, tuple(EVENTS)), Body(b"data: nonsense\n\n"), Hang()], Outcome.GARBAGE),
        ([Head(200, tuple(EVENTS)), Body(b"data: [1]\n\n"), Hang()], Outcome.GARBAGE),
        (
            [Head(200, tuple(EVENTS)), Body(b'data: {"error": {"code": 1}}\n\n'), Hang()],
            Outcome.SERVER_ERROR,
        ),
        ([Head(200, tuple(EVENTS)), End()], Outcome.GARBAGE),
        ([Head(200, tuple(EVENTS)), Body(b"data: {}"), Fail(Outcome.DIED)], Outcome.DIED),
    ],
)
async def test_a_candidate_that_fails_unseen_is_replaced(script: Script, outcome: Outcome) -> None:
    run = Run([script], [whole(GOOD)])
    client = await run.to_end()
    assert json.loads(client.body) == GOOD
    assert run.dispatch.failover is outcome
    assert run.dispatch.attempt.name == "full"
    assert run.attempts("int8", outcome) == 1
    assert run.failovers("int8", outcome) == 1
    assert run.upstreams["full"].requests == run.upstreams["int8"].requests


async def test_a_candidate_that_sends_no_first_byte_in_time_is_replaced() -> None:
    run = Run([[Hang()]], [whole(GOOD)])
    run.dispatch.start()
    run.dispatch.expire(run.dispatch.deadline)
    await run.client.over.wait()
    assert json.loads(run.client.body) == GOOD
    assert run.upstreams["int8"].streams[0].is_aborted
    assert run.failovers("int8", Outcome.TIMEOUT) == 1


async def test_a_baseline_that_refuses_is_asked_once_more() -> None:
    run = Run(baseline=[[Fail(Outcome.REFUSED)], whole(GOOD)], attempts=("full", "full", "int8"))
    client = await run.to_end()
    assert json.loads(client.body) == GOOD
    assert run.dispatch.attempt.name == "full"


async def test_a_candidate_stands_in_for_a_baseline_that_is_down() -> None:
    refused: Script = [Fail(Outcome.REFUSED)]
    run = Run([whole(GOOD)], [refused, refused], attempts=("full", "full", "int8"))
    client = await run.to_end()
    assert json.loads(client.body) == GOOD
    assert run.dispatch.attempt.name == "int8"


async def test_a_proxy_error_in_front_of_the_baseline_counts_as_refusal() -> None:
    html: Script = [Head(503, ((b"content-type", b"text/html"),)), Body(b"<html>"), End()]
    run = Run(baseline=[html, html], attempts=("full", "full"))
    client = await run.to_end()
    assert client.error is not None
    assert client.error.status == 503


async def test_a_5xx_of_the_baseline_engine_passes_unchanged() -> None:
    run = Run(baseline=[whole(ERROR, status=500)], attempts=("full", "full"))
    client = await run.to_end()
    assert (client.status, json.loads(client.body)) == (500, ERROR)


async def test_a_baseline_that_does_not_begin_in_time_is_a_504() -> None:
    run = Run(baseline=[[Hang()]], attempts=("full", "full"))
    run.dispatch.start()
    run.dispatch.expire(run.dispatch.deadline)
    assert run.client.error is not None
    assert run.client.error.status == 504


async def test_the_deadline_moves_with_progress() -> None:
    run = Run([[*events(ROLE, chunk("a"), is_done=False), Hang()]])
    idle = LimitSettings().idle_seconds
    run.now = 1000.0
    run.dispatch.start()
    await run.client.began.wait()
    assert run.dispatch.deadline == 1000.0 + idle
    run.now = 1030.0
    run.dispatch.on_body(b"data: {}\n\n")
    run.dispatch.expire(1000.0 + idle)
    assert run.dispatch.deadline == 1030.0 + idle
    assert not run.client.over.is_set()


async def test_a_stream_that_hangs_goes_on_with_the_baseline() -> None:
    rest = events(other(chunk("b")))
    run = Run([[*events(ROLE, chunk("a"), is_done=False), Hang()]], [rest])
    run.dispatch.start()
    await run.client.began.wait()
    await asyncio.sleep(0)
    run.dispatch.expire(run.dispatch.deadline)
    await run.client.over.wait()
    assert run.client.text() == "ab"
    assert run.failovers("int8", Outcome.TIMEOUT) == 1


async def test_a_continuation_that_never_begins_is_given_up() -> None:
    first = events(ROLE, chunk("a"), is_done=False)
    run = Run([[*first, Fail(Outcome.DIED)]], [[Hang()]])
    run.dispatch.start()
    for _ in range(20):  # turns of the loop: the stream, its death, the new request
        await asyncio.sleep(0)
    assert len(run.upstreams["full"].requests) == 1
    assert run.dispatch.deadline == LimitSettings().first_byte_seconds
    run.dispatch.expire(run.dispatch.deadline)
    assert run.client.is_broken
    assert run.upstreams["full"].streams[0].is_aborted


async def test_a_stream_passes_byte_for_byte() -> None:
    steps = events(ROLE, chunk("hé"), chunk(finish_reason="stop"))
    client = await Run([steps]).to_end()
    assert client.body == b"".join(step.data for step in steps if isinstance(step, Body))
    assert client.is_finished


@pytest.mark.parametrize("size", [1, 2, 7, 50])
async def test_a_stream_in_odd_pieces_passes_byte_for_byte(size: int) -> None:
    whole_stream = b"".join(
        step.data for step in events(ROLE, chunk("a"), chunk("b")) if isinstance(step, Body)
    )
    pieces = [Body(whole_stream[at : at + size]) for at in range(0, len(whole_stream), size)]
    client = await Run([[Head(200, tuple(EVENTS)), *pieces, End()]]).to_end()
    assert client.body == whole_stream


@pytest.mark.parametrize(
    "death",
    [
        [Fail(Outcome.DIED)],
        [Body(b'data: {"id":"c-1","cho'), Fail(Outcome.DIED)],
        [Body(b'data: {"error": {"message": "engine dead"}}\n\n'), Hang()],
        [End()],
    ],
    ids=["cut", "cut-within-event", "error-event", "end-without-done"],
)
async def test_a_stream_that_breaks_off_goes_on_from_the_text_sent(death: list[Any]) -> None:
    first = events(ROLE, chunk("Hello "), chunk("wor"), is_done=False)
    rest = events(*map(other, (ROLE, chunk("ld"), chunk("!", finish_reason="stop"))))
    run = Run([[*first, *death]], [rest], body={"max_tokens": 9})
    client = await run.to_end()
    assert client.text() == "Hello world!"
    assert client.body.count(b"[DONE]") == 1
    assert {event["id"] for event in client.events()} == {"c-1"}
    assert sum("role" in e["choices"][0]["delta"] for e in client.events()) == 1
    asked = run.sent_to("full", 0)
    assert asked["messages"][-1] == {"role": "assistant", "content": "Hello wor"}
    assert asked["continue_final_message"] is True
    assert asked["add_generation_prompt"] is False
    assert asked["max_tokens"] == 7
    assert sum(cell.value for cell in run.metrics.failovers.cells.values()) == 1


async def test_a_continued_stream_reports_the_usage_of_both_halves() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    first = events(ROLE, chunk("ab"), is_done=False)
    rest = events(other(chunk("c")), {"id": "c-2", "choices": [], "usage": usage})
    options = {"stream_options": {"include_usage": True}}
    run = Run([[*first, Fail(Outcome.DIED)]], [rest], body=options)
    client = await run.to_end()
    assert client.events()[-1]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
    }
    assert run.upstreams["full"].requests[0].path == b"/tokenize"


async def test_a_stream_lost_after_its_finish_reason_is_completed_without_asking() -> None:
    first = events(ROLE, chunk("ab"), chunk(finish_reason="stop"), is_done=False)
    run = Run([[*first, Fail(Outcome.DIED)]])
    client = await run.to_end()
    assert client.text() == "ab"
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert run.upstreams["full"].requests == []


async def test_a_stream_lost_at_its_token_limit_finishes_with_length() -> None:
    first = events(ROLE, chunk("a"), chunk("b"), is_done=False)
    run = Run([[*first, Fail(Outcome.DIED)]], body={"max_tokens": 2})
    client = await run.to_end()
    assert client.events()[-1]["choices"][0]["finish_reason"] == "length"
    assert run.upstreams["full"].requests == []


@pytest.mark.parametrize(
    "extra",
    [{"n": 2}, {"tools": [{}]}, {"response_format": {"type": "json_object"}}, {"logprobs": True}],
)
async def test_what_cannot_be_continued_ends_in_an_error_event(extra: dict[str, Any]) -> None:
    first = events(ROLE, chunk("a"), is_done=False)
    run = Run([[*first, Fail(Outcome.DIED)]], body=extra)
    client = await run.to_end()
    assert client.is_broken
    assert client.events()[-1]["error"]["code"] == "upstream_died"
    assert b"[DONE]" not in client.body


async def test_a_continuation_that_breaks_off_ends_in_an_error_event() -> None:
    first = events(ROLE, chunk("a"), is_done=False)
    second = events(other(chunk("b")), is_done=False)
    run = Run([[*first, Fail(Outcome.DIED)]], [[*second, Fail(Outcome.DIED)]])
    client = await run.to_end()
    assert client.is_broken
    assert client.events()[-1]["error"]["code"] == "upstream_died"
    assert run.attempts("full", Outcome.DIED) == 1


async def test_a_text_completion_goes_on_from_the_text_sent() -> None:
    def text(value: str) -> dict[str, Any]:
        return {"id": "t-1", "choices": [{"index": 0, "text": value, "finish_reason": None}]}

    run = Run(
        [[*events(text("ab"), is_done=False), Fail(Outcome.DIED)]],
        [events(text("cd"))],
        body={"prompt": "P: ", "messages": None},
        path=b"/v1/completions",
    )
    client = await run.to_end()
    assert "".join(event["choices"][0]["text"] for event in client.events()) == "abcd"
    assert run.sent_to("full", 0)["prompt"] == "P: ab"


async def test_a_client_that_leaves_stops_the_engine() -> None:
    run = Run([[*events(ROLE, is_done=False), Hang()]])
    run.dispatch.start()
    await run.client.began.wait()
    run.dispatch.abort()
    assert run.upstreams["int8"].streams[0].is_aborted
    assert run.attempts("int8", Outcome.CLIENT_GONE) == 1


async def test_a_slow_client_pauses_the_upstream_and_is_cut_in_the_end() -> None:
    run = Run([[*events(ROLE, is_done=False), Hang()]])
    run.dispatch.start()
    await run.client.began.wait()
    run.now = 10.0
    run.dispatch.pause()
    assert run.upstreams["int8"].streams[0].is_paused
    assert run.dispatch.deadline == 10.0 + LimitSettings().client_write_seconds
    run.dispatch.expire(run.dispatch.deadline)
    assert run.client.is_broken


async def test_a_huge_body_is_passed_on_as_it_comes() -> None:
    piece = b"x" * (BUFFER_LIMIT_BYTES // 2)
    run = Run([[Head(), Body(piece), Body(piece), Body(b"yz"), Body(b"!"), End()]])
    client = await run.to_end()
    assert len(client.body) == BUFFER_LIMIT_BYTES + 3
    assert client.body.endswith(b"yz!")


async def test_a_huge_body_that_breaks_off_closes_the_connection() -> None:
    piece = b"x" * (BUFFER_LIMIT_BYTES + 1)
    run = Run([[Head(), Body(piece), Fail(Outcome.DIED)]])
    client = await run.to_end()
    assert client.is_broken
    assert client.body == piece
