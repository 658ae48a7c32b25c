import asyncio
import json
from typing import Any

import pytest

from penumbra.router.errors import (
    BadRequest,
    ControlUnavailable,
    FeedbackExists,
    GatewayError,
    RequestNotFound,
)
from penumbra.router.link.feedback import FeedbackBody, FeedbackSubmitter, read_feedback
from penumbra.router.link.messages import Attribution, Feedback, FeedbackDone, Found, Locate, Seek
from penumbra.router.link.served import Served

INT8 = Attribution("demo", "int8", "facts")
THUMB = FeedbackBody("req-1", thumb="down", metadata={"why": "wrong"})


def body(**fields: Any) -> bytes:
    return json.dumps({"request_id": "req-1", **fields}).encode()


def nested(depth: int) -> dict[str, Any]:
    """Objects and lists in turn, `depth` of them within each other."""
    value: Any = 1
    for level in range(depth - 1):
        value = [value] if level % 2 else {"a": value}
    return {"a": value}


@pytest.mark.parametrize(
    "fields",
    [
        {"thumb": "up"},
        {"thumb": "up", "metadata": nested(12)},
        {"score": 0},
        {"score": 1.0},
        {"escalated": False},
        {"thumb": "down", "score": 0.2, "escalated": True, "metadata": {"a": [1, {"b": None}]}},
    ],
)
def test_a_judgement_is_read(fields: dict[str, Any]) -> None:
    feedback = read_feedback(body(**fields))
    assert feedback.request_id == "req-1"
    for name, value in fields.items():
        assert getattr(feedback, name) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b'{"request_id":"\xff","thumb":"up"}',
        body(),
        body(metadata={"a": 1}),
        body(thumb="sideways"),
        body(thumb=True),
        body(score=1.01),
        body(score=-0.01),
        body(score="1"),
        body(escalated=1),
        body(thumb="up", metadata=[1]),
        body(thumb="up", metadata={"a": "x" * 4096}),
        body(thumb="up", metadata=nested(13)),
        body(thumb="up", metadata={"a": nested(12)}),
        b'{"request_id":"r","thumb":"up","metadata":{"a":' + 7_000 * b"[" + 7_000 * b"]" + b"}}",
        body(thumb="up", more=1),
        json.dumps({"request_id": "", "thumb": "up"}).encode(),
        json.dumps({"request_id": "x" * 257, "thumb": "up"}).encode(),
        json.dumps({"thumb": "up"}).encode(),
    ],
)
def test_an_invalid_judgement_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        read_feedback(raw)
    assert refused.value.status == 400


def test_the_server_of_a_request_is_remembered() -> None:
    served = Served()
    served.remember(b"req-1", (INT8, "acme"))
    assert served.find("req-1", "acme") == INT8
    assert served.find("req-2", "acme") is None
    assert served.find("ρεκ", "acme") is None


def test_another_tenants_request_is_not_found() -> None:
    served = Served()
    served.remember(b"req-1", (INT8, "acme"))
    assert served.find("req-1", "other") is None


def test_the_last_requests_are_remembered_and_no_more_than_the_limit() -> None:
    served = Served(limit=10)
    for number in range(1000):
        served.remember(b"%d" % number, (INT8, "acme"))
        remembered = [earlier for earlier in range(number + 1) if served.find(str(earlier), "acme")]
        assert remembered == list(range(number + 1 - len(remembered), number + 1))
        assert min(number + 1, 5) <= len(remembered) <= 10


class Control:
    """The other end: answers every judgement in one way."""

    def __init__(self, submitter: FeedbackSubmitter, **answer: Any) -> None:
        self.heard: list[Feedback] = []
        self._submitter = submitter
        self._answer = answer

    def take(self, feedback: Feedback | Locate) -> None:
        assert isinstance(feedback, Feedback)
        self.heard.append(feedback)
        done = FeedbackDone(feedback.nonce, **self._answer)
        asyncio.get_running_loop().call_soon(self._submitter.done, done)

    async def submit(self) -> Attribution:
        with self._submitter.connected(self.take):
            return await self._submitter.submit("acme", THUMB)


async def test_a_judgement_is_passed_on_with_the_variant_that_served_it() -> None:
    served = Served()
    served.remember(b"req-1", (INT8, "acme"))
    control = Control(FeedbackSubmitter(served), attribution=INT8)
    assert await control.submit() == INT8
    [heard] = control.heard
    assert (heard.request_id, heard.tenant, heard.attribution) == ("req-1", "acme", INT8)
    assert (heard.thumb, heard.score, heard.is_escalated) == (False, None, False)
    assert heard.metadata == {"why": "wrong"}


async def test_a_request_that_was_served_elsewhere_is_passed_on_without() -> None:
    control = Control(FeedbackSubmitter(Served()), attribution=INT8)
    assert await control.submit() == INT8
    assert control.heard[0].attribution is None


@pytest.mark.parametrize(
    ("answer", "error", "status"),
    [
        ({"attribution": None}, RequestNotFound, 404),
        ({"attribution": INT8, "error": "feedback_exists"}, FeedbackExists, 409),
        ({"attribution": INT8, "error": "control_unavailable"}, ControlUnavailable, 503),
    ],
)
async def test_the_answer_of_the_control_process_is_told(
    answer: dict[str, Any], error: type[GatewayError], status: int
) -> None:
    control = Control(FeedbackSubmitter(Served()), **answer)
    with pytest.raises(error) as refused:
        await control.submit()
    assert refused.value.status == status


async def test_without_a_link_nothing_is_promised() -> None:
    with pytest.raises(ControlUnavailable):
        await FeedbackSubmitter(Served()).submit("acme", THUMB)


async def test_an_answer_that_does_not_come_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penumbra.router.link.feedback.ANSWER_SECONDS", 0.01)
    submitter = FeedbackSubmitter(Served())
    with submitter.connected(lambda feedback: None), pytest.raises(ControlUnavailable):
        await submitter.submit("acme", THUMB)
    submitter.done(FeedbackDone(1, INT8))  # too late, and no harm


async def test_too_many_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penumbra.router.link.feedback.IN_FLIGHT", 1)
    submitter = FeedbackSubmitter(Served())
    with submitter.connected(lambda feedback: None):
        waiting = asyncio.create_task(submitter.submit("acme", THUMB))
        await asyncio.sleep(0)
        with pytest.raises(ControlUnavailable):
            await submitter.submit("acme", THUMB)
        submitter.done(FeedbackDone(1, INT8))
        assert await waiting == INT8


async def test_a_link_that_broke_takes_no_more_judgements() -> None:
    submitter = FeedbackSubmitter(Served())
    control = Control(submitter, attribution=INT8)
    assert await control.submit() == INT8
    with pytest.raises(ControlUnavailable):
        await submitter.submit("acme", THUMB)
    assert len(control.heard) == 1


def test_another_process_is_told_what_is_remembered_here() -> None:
    served = Served()
    served.remember(b"req-1", (INT8, "acme"))
    submitter = FeedbackSubmitter(served)
    assert submitter.found(Seek(4, "req-1", "acme")) == Found(4, INT8)
    assert submitter.found(Seek(5, "req-1", "other")) == Found(5, None)
