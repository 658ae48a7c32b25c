"""Upstream in memory, for unit tests: deterministic, scripted, no sockets, no clock.

Never part of a running gateway. A script is a list of steps; each is delivered in a callback of its
own, as a socket would, so pausing and aborting between any two of them can be tested.
"""

import asyncio
import itertools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import mmh3

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.calls import UpstreamCalls
from penumbra.router.upstream.port import AttemptBudget, Headers, Receiver, UpstreamRequest

JSON: Headers = [(b"content-type", b"application/json")]
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]


@dataclass(frozen=True, slots=True)
class Head:
    """Deliver a status and headers."""

    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = tuple(JSON)


@dataclass(frozen=True, slots=True)
class Body:
    """Deliver a piece of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """Complete the answer."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Break the answer off."""

    outcome: Outcome
    was_sent: bool | None = None
    """As a first step: whether the request had been sent; by default unless it was refused."""
    was_reused: bool = False
    """Whether the connection had carried another request before."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Deliver nothing more."""


Step = Head | Body | End | Fail | Hang
Script = Iterable[Step]


class FakeStream:
    """An answer under way."""

    def __init__(self, steps: Script, receiver: Receiver, budget: AttemptBudget) -> None:
        self._steps = iter(steps)
        first = next(self._steps, None)
        self.was_sent = not _is_refusal(first)
        budget.left -= self.was_sent
        self.was_reused = isinstance(first, Fail) and first.was_reused
        if first is not None:
            self._steps = itertools.chain((first,), self._steps)
        self._receiver = receiver
        self.is_aborted = False
        self.is_paused = False
        asyncio.get_running_loop().call_soon(self._advance)

    def abort(self) -> None:
        """See `Stream`."""
        self.is_aborted = True

    def pause(self) -> None:
        """See `Stream`."""
        self.is_paused = True

    def resume(self) -> None:
        """See `Stream`."""
        self.is_paused = False
        asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        if self.is_aborted or self.is_paused:
            return
        step = next(self._steps, None)
        match step:
            case Head():
                self._receiver.on_head(step.status, list(step.headers))
            case Body():
                self._receiver.on_body(step.data)
            case End():
                self._receiver.on_end()
            case Fail():
                self._receiver.on_fail(step.outcome, "scripted")
            case Hang() | None:
                return
        if isinstance(step, Head | Body):
            asyncio.get_running_loop().call_soon(self._advance)


def _is_refusal(step: Step | None) -> bool:
    if not isinstance(step, Fail):
        return False
    was_sent = step.was_sent
    refusals = (Outcome.REFUSED, Outcome.GATEWAY_LIMIT)
    return step.outcome in refusals if was_sent is None else not was_sent


class FakeUpstream(UpstreamCalls):
    """A variant in memory.

    Args:
        model: Public model name.
        answer: request -> script; a small deterministic engine if not given.
    """

    def __init__(
        self, model: str, answer: Callable[[UpstreamRequest], Script] | None = None
    ) -> None:
        super().__init__(model)
        self._answer = answer or self._engine
        self.requests: list[UpstreamRequest] = []
        self.streams: list[FakeStream] = []

    def stream(self, request: UpstreamRequest, receiver: Receiver) -> FakeStream:
        """See `Upstream.stream`."""
        steps: Script = (Fail(Outcome.REFUSED),)
        if request.budget.left > 0:
            self.requests.append(request)
            steps = self._answer(request)
        stream = FakeStream(steps, receiver, request.budget)
        self.streams.append(stream)
        return stream

    def _engine(self, request: UpstreamRequest) -> Script:
        match request.path:
            case b"/health":
                return (Head(), End())
            case b"/version":
                return whole({"version": "fake-1"})
            case b"/v1/models":
                return whole({"data": [{"id": self.model, "root": "fake", "max_model_len": 1024}]})
            case b"/v1/completions":
                return whole(scored(json.loads(request.body)))
            case _:
                error = {"message": "no such route", "type": "invalid_request_error", "code": 404}
                return whole({"error": error}, status=404)


def whole(value: object, status: int = 200) -> Script:
    """A complete JSON answer."""
    return (Head(status), Body(json.dumps(value).encode()), End())


def events(*payloads: object, is_done: bool = True) -> list[Step]:
    """A stream of one event a piece; objects are JSON-encoded, bytes taken as they are."""
    steps: list[Step] = [Head(200, tuple(EVENTS))]
    for payload in payloads:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        steps.append(Body(b"data: " + data + b"\n\n"))
    if is_done:
        steps += [Body(b"data: [DONE]\n\n"), End()]
    return steps


def scored(body: dict[str, Any], shift: float = 0.0) -> dict[str, Any]:
    """A scoring answer as vLLM's: log-probabilities that depend on the prefix only.

    Args:
        body: The request.
        shift: Added to every token's log-probability: a build that differs.
    """
    ids: list[int] = body["prompt"]
    wanted = body["prompt_logprobs"]
    rows: list[dict[str, Any] | None] = [None]
    for index in range(1, len(ids)):
        digest: int = mmh3.hash(repr(ids[: index + 1]), signed=False)
        logprob = min(-(digest % 1000) / 100 + shift, 0.0)
        # A token that is not the likeliest has less than half of the probability.
        is_top = digest % 4 > 0 or digest % 1000 < 100
        row = {str(ids[index]): {"logprob": logprob, "rank": 1 if is_top else 2}}
        if wanted and not is_top:
            rest = math.log1p(-math.exp(logprob))
            row[str(ids[index] + 1)] = {"logprob": rest, "rank": 1}
        rows.append(row)
    choice = {"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": rows}
    return {"object": "text_completion", "choices": [choice], "usage": {"prompt_tokens": len(ids)}}
