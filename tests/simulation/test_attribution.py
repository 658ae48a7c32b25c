"""Attribution against an oracle: two builds that each behave in some way, alike or not.

The truth about a behaviour is told where it is made, not read from its bytes.
"""

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from enum import Enum

from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.monitoring.vocabulary import FAILURES, Outcome
from penumbra.router.dispatch.answer_check import AnswerKind
from penumbra.router.dispatch.request_shape import RequestShape
from penumbra.router.upstream.fake import EVENTS, Body, End, Fail, Hang, Head, Script, Step
from tests.unit.router.dispatch.test_dispatch import ROLE, Run, chunk

EXAMPLES = 2_000
_JSON = ((b"content-type", b"application/json"),)
_HTML = ((b"content-type", b"text/html"),)
_PATIENCE = 1_500
"""Turns of the event loop after which a build that gave nothing more has hung."""
_HELD = frozenset({*FAILURES, Outcome.UNSUPPORTED})
"""Outcomes that say that the candidate did it alone."""


class Truth(Enum):
    """Kind of a behaviour, as the client sees it."""

    ANSWER = "answer"
    REFUSAL = "refusal"  # a 4xx: the request's fault, if both say so
    FAULT = "fault"


@dataclass(frozen=True)
class Behaviour:
    name: str
    truth: Truth
    steps: tuple[Step, ...] = field(repr=False)
    is_up: bool = True
    """Whether the build answers when it is asked for a sign of life."""

    def script(self) -> Script:
        return iter(self.steps)


def event(payload: object) -> bytes:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return b"data: " + data + b"\n\n"


def _pieces(data: bytes, size: int) -> tuple[Body, ...]:
    return tuple(Body(data[at : at + size]) for at in range(0, len(data), size))


GOOD = b'{"id":"c-1","object":"chat.completion","choices":[{"message":{"content":"x"}}]}'
ENGINE_ERROR = b'{"error":{"message":"no","type":"BadRequestError","code":400}}'
BROKEN_BODIES = (b"", b"null", b"[]", b"<html>x</html>", b"\x00\xff", GOOD[:-3], b'{"error":"x"}')
OTHER_BODIES = (ENGINE_ERROR, b'{"detail":"Not Found"}', b"<html>x</html>", b"", b'{"error":"x"}')
FINISH = chunk(finish_reason="stop")

sizes = st.sampled_from([1, 3, 50, 10_000])


@st.composite
def whole_behaviours(draw: st.DrawFn) -> Behaviour:
    """A behaviour of a build that was asked for a whole answer."""
    size = draw(sizes)
    match draw(st.sampled_from(["good", "broken", "4xx", "5xx", "odd", "dies"])):
        case "good":
            steps = (Head(200, _JSON), *_pieces(GOOD, size), End())
            return Behaviour("good", Truth.ANSWER, steps)
        case "broken":
            body = draw(st.sampled_from(BROKEN_BODIES))
            return Behaviour("broken", Truth.FAULT, (Head(200), *_pieces(body, size), End()))
        case "4xx":
            status = draw(st.sampled_from([400, 401, 403, 404, 405, 408, 413, 422, 429, 499]))
            body = draw(st.sampled_from(OTHER_BODIES))
            steps = (Head(status, _HTML), *_pieces(body, size), End())
            return Behaviour(f"{status}", Truth.REFUSAL, steps)
        case "5xx":
            status = draw(st.sampled_from([500, 501, 502, 503, 504, 599]))
            body = draw(st.sampled_from(OTHER_BODIES))
            return Behaviour(f"{status}", Truth.FAULT, (Head(status), *_pieces(body, size), End()))
        case "odd":
            status = draw(st.sampled_from([204, 205, 301, 302, 307]))
            return Behaviour(f"{status}", Truth.FAULT, (Head(status), End()))
        case _:
            cut = draw(st.integers(0, len(GOOD) - 1))
            steps = (Head(200, _JSON), *_pieces(GOOD[:cut], size), Fail(Outcome.DIED))
            return Behaviour("dies", Truth.FAULT, steps)


@st.composite
def stream_behaviours(draw: st.DrawFn) -> Behaviour:
    """A behaviour of a build that was asked for a stream."""
    head = Head(200, tuple(EVENTS))
    comments = event(b"").replace(b"data: ", b": ping") * draw(st.integers(0, 2))
    good = event(ROLE) + event(chunk("a")) + event(chunk("b"))
    size = draw(sizes)
    kind = draw(
        st.sampled_from(["good", "unmarked", "first", "cut", "error", "comments", "refused", "4xx"])
    )
    match kind:
        case "good" | "unmarked":
            end = event(FINISH) + (event(b"[DONE]") if kind == "good" else b"")
            steps: tuple[Step, ...] = (head, *_pieces(comments + good + end, size), End())
            return Behaviour(kind, Truth.ANSWER, steps)
        case "first":
            bad = draw(st.sampled_from([b"oops", b"1", b"[]", b"null", b'{"error":{"code":1}}']))
            steps = (head, *_pieces(comments + event(bad), size), End())
        case "cut":
            cut = draw(st.integers(0, len(good)))
            steps = (head, *_pieces(good[:cut], size), Fail(Outcome.DIED))
        case "error":
            bad = event({"error": {"message": "dead", "code": 500}})
            steps = (head, *_pieces(good + bad, size), End())
        case "comments":
            steps = (head, *_pieces(comments + b": x\n\n", size), End())
        case "refused":
            return Behaviour(kind, Truth.FAULT, (Fail(Outcome.REFUSED),), is_up=False)
        case _:
            steps = (Head(draw(st.sampled_from([400, 404, 429]))), Body(ENGINE_ERROR), End())
            return Behaviour(kind, Truth.REFUSAL, steps)
    return Behaviour(kind, Truth.FAULT, steps)


@st.composite
def hanging(draw: st.DrawFn) -> Behaviour:
    """A build that takes a request and gives no data."""
    steps = draw(
        st.sampled_from(
            [
                (Hang(),),
                (Head(200, tuple(EVENTS)), Hang()),
                (Head(200, tuple(EVENTS)), Body(b": ping\n\n"), Hang()),
                (Head(200, _JSON), Body(b'{"id"'), Hang()),
            ]
        )
    )
    return Behaviour("hangs", Truth.FAULT, tuple(steps))


whole = st.one_of(whole_behaviours(), whole_behaviours(), hanging())
streamed = st.one_of(stream_behaviours(), stream_behaviours(), hanging())


def end_with(
    candidate: Behaviour, baseline: Behaviour, *, is_stream: bool, is_continuable: bool
) -> tuple[dict[Outcome, int], Run]:
    """Run one request; returns the outcomes that the candidate is counted with."""

    async def run_to_end() -> tuple[dict[Outcome, int], Run]:
        shape = RequestShape(AnswerKind(is_stream=is_stream), is_continuable)
        alive: Script = (Head(), End())
        run = Run(
            [candidate.script()],
            [baseline.script() for _ in range(4)],
            body={"stream": is_stream} | ({} if is_continuable else {"tools": [{}]}),
            shape=shape,
            probe=alive if baseline.is_up else [Fail(Outcome.REFUSED)],
            repeated=baseline.script(),
        )
        run.dispatch.start()
        for turn in itertools.count():
            await asyncio.sleep(0)
            if run.client.over.is_set() and sum(counted(run).values()):
                return counted(run), run
            if turn % _PATIENCE == _PATIENCE - 1 and not run.client.over.is_set():
                run.now = max(run.now, run.dispatch.deadline)
                run.dispatch.expire(run.now)
            assert turn < 20_000, "it never ended"
        raise AssertionError

    return asyncio.run(run_to_end())


def counted(run: Run) -> dict[Outcome, int]:
    counts = {outcome: run.attempts("int8", outcome) for outcome in Outcome}
    return {outcome: count for outcome, count in counts.items() if count}


def is_charged(counts: dict[Outcome, int]) -> bool:
    assert sum(counts.values()) == 1, counts
    return bool(_HELD & counts.keys())


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(behaviour=whole)
def test_a_candidate_that_behaves_as_the_baseline_is_never_charged(behaviour: Behaviour) -> None:
    counts, _ = end_with(behaviour, behaviour, is_stream=False, is_continuable=True)
    assert not is_charged(counts)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(behaviour=streamed, is_continuable=st.booleans())
def test_streams_of_a_candidate_like_the_baselines_are_never_charged(
    behaviour: Behaviour, is_continuable: bool
) -> None:
    counts, _ = end_with(behaviour, behaviour, is_stream=True, is_continuable=is_continuable)
    assert not is_charged(counts)


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(behaviour=whole)
def test_a_candidate_that_misbehaves_alone_always_is(behaviour: Behaviour) -> None:
    good = Behaviour("good", Truth.ANSWER, (Head(200, _JSON), Body(GOOD), End()))
    counts, run = end_with(behaviour, good, is_stream=False, is_continuable=True)
    assert is_charged(counts) is (behaviour.truth is not Truth.ANSWER)
    assert run.client.status == 200
    assert json.loads(run.client.body)["choices"]


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(behaviour=streamed, is_continuable=st.booleans())
def test_streams_of_a_candidate_that_misbehaves_alone_always_are(
    behaviour: Behaviour, is_continuable: bool
) -> None:
    events = event(ROLE) + event(chunk("a")) + event(chunk("b")) + event(FINISH) + event(b"[DONE]")
    steps = (Head(200, tuple(EVENTS)), Body(events), End())
    good = Behaviour("good", Truth.ANSWER, steps)
    counts, run = end_with(behaviour, good, is_stream=True, is_continuable=is_continuable)
    assert is_charged(counts) is (behaviour.truth is not Truth.ANSWER)
    if behaviour.truth is Truth.ANSWER:
        assert run.client.is_finished
