"""Times of the client's answer beside those of the shadow answer of the same request."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from penumbra.monitoring.observations import Arm
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.upstream.fake import Body, End, Head, Script, Step, events
from penumbra.router.upstream.port import UpstreamRequest
from tests.support import shadow
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS, answer_bytes, mirrored
from tests.support.shadow import Build, ComparatorSetup, Time, compare, watch

BOTH = ("ttft", "tpot")


class SlowBuild(Build):
    """A build whose answers take time: so long to the first token, so long for each after it."""

    first_seconds = 2.0
    token_seconds = 0.5
    is_deaf = False
    """Whether it answers as a whole what was to be a stream."""

    def __call__(self, request: UpstreamRequest) -> Script:
        if request.path != b"/v1/chat/completions":
            return super().__call__(request)
        body = json.loads(request.body)
        self.requests.append(request)
        if body["stream"] and not self.is_deaf:
            return self._stream()
        return self._whole(body)

    def _whole(self, body: dict[str, Any]) -> Iterator[Step]:
        yield Head()
        TIME.seconds += self.first_seconds
        yield Body(json.dumps(self.chat(body)).encode())
        yield End()

    def _stream(self) -> Iterator[Step]:
        head, *pieces, done, end = events(*deltas())
        yield head
        yield Body(b": wait\n\n")
        TIME.seconds += self.first_seconds
        for piece in pieces:
            yield piece
            TIME.seconds += self.token_seconds
        TIME.seconds -= self.token_seconds
        yield done
        yield end


def deltas() -> list[dict[str, Any]]:
    """Chunks of a stream with one token each."""
    told: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": "x"}, "token_ids": [token]}]}
        for token in ANSWER_IDS
    ]
    told[0]["prompt_token_ids"] = PROMPT_IDS
    told[-1]["choices"][0]["finish_reason"] = "stop"
    return told


TIME = Time()


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> ComparatorSetup:
    monkeypatch.setattr(shadow, "Build", SlowBuild)
    monkeypatch.setattr(shadow, "Time", lambda: TIME)
    monkeypatch.setattr(TIME, "seconds", 1000.0)
    return ComparatorSetup(watch(generate=1.0))


def streamed(**changes: Any) -> MirrorFrame:
    """A stream that took 1 s to its first token and .1 s for each of the four after it."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "model": "demo"}
    answer = b"".join(step.data for step in events(*deltas()) if isinstance(step, Body))
    fields: dict[str, Any] = {
        "body": json.dumps(body).encode(),
        "is_stream": True,
        "answer": answer,
        "first_byte_seconds": 1.0,
        "total_seconds": 1.4,
        "latencies": BOTH,
    }
    return mirrored(**{**fields, **changes})


@pytest.mark.parametrize("variant", ["full", "int8"])
async def test_a_stream_is_timed_beside_the_other_builds(
    variant: str, setup: ComparatorSetup
) -> None:
    await compare(setup, streamed(variant=variant))
    (pair,) = setup.pairs
    assert pair.first_ratio == pytest.approx(1.0 / 2.0)
    assert pair.pace_ratio == pytest.approx(0.1 / 0.5)
    assert pair.whole_ratio is None


async def test_a_whole_answer_is_timed_as_a_whole(setup: ComparatorSetup) -> None:
    told = {"latencies": ("ttft",), "first_byte_seconds": 6.0, "total_seconds": 6.0}
    body = {"messages": [], "stream": False, "model": "demo"}
    await compare(setup, mirrored(body=json.dumps(body).encode(), answer=answer_bytes(), **told))
    (pair,) = setup.pairs
    assert (pair.first_ratio, pair.whole_ratio, pair.pace_ratio) == (None, 3.0, None)


@pytest.mark.parametrize(
    ("latencies", "is_first", "is_pace"),
    [(("ttft",), True, False), (("tpot",), False, True), ((), False, False)],
)
async def test_only_what_the_gateway_left_to_shadow_answers_is_told(
    latencies: tuple[str, ...], is_first: bool, is_pace: bool, setup: ComparatorSetup
) -> None:
    await compare(setup, streamed(variant="int8", latencies=latencies))
    (pair,) = setup.pairs
    assert (pair.first_ratio is not None, pair.pace_ratio is not None) == (is_first, is_pace)


async def test_a_stream_is_not_timed_beside_a_whole_answer(setup: ComparatorSetup) -> None:
    setup.builds["int8"].is_deaf = True  # type: ignore[attr-defined]
    await compare(setup, streamed())
    (pair,) = setup.pairs
    assert (pair.first_ratio, pair.whole_ratio, pair.pace_ratio) == (None, None, None)


async def test_a_shadow_answer_that_failed_has_no_time(setup: ComparatorSetup) -> None:
    setup.builds["int8"].__class__ = Build
    setup.builds["int8"].status = 500
    await compare(setup, streamed())
    (pair,) = setup.pairs
    assert (pair.harm, pair.first_ratio, pair.pace_ratio) == (1, None, None)


async def test_the_baseline_is_timed_beside_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "Build", SlowBuild)
    monkeypatch.setattr(shadow, "Time", lambda: TIME)
    setup = ComparatorSetup(watch(generate=1.0, aa=1.0))
    await compare(setup, streamed(), expected=2)
    again = next(pair for pair in setup.pairs if pair.arm is Arm.BASELINE)
    assert again.first_ratio is not None
