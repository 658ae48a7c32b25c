"""A candidate taken out of service: no attempt starts at it, and its requests move."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.attempt import Attempt, TrafficGate
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.dispatch.gates import TrafficGates, move
from penumbra.router.dispatch.plan import Plan
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Variant, Watch
from penumbra.router.metrics import GatewayMetrics
from penumbra.router.upstream.fake import (
    EVENTS,
    Body,
    End,
    Fail,
    FakeUpstream,
    Hang,
    Head,
    Script,
    whole,
)
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.cells import attempts_of, cells_of
from tests.support.dispatching import ANY, services
from tests.support.engine_wire import Engine
from tests.unit.router.dispatch.test_dispatch import RecordingClient

CHAT = b"/v1/chat/completions"
TEXT = "".join(Engine("full").tokens)


def model(*, in_flight: str = "continue", is_watched: bool = True, **flag: Any) -> ModelSnapshot:
    watch = Watch.model_validate({"candidate": "int8", "run": "r", "in_flight": in_flight})
    return ModelSnapshot(
        baseline="full",
        variants={name: Variant(url=f"http://{name}.test") for name in ("full", "int8", "int4")},
        flag=Flag(**flag),
        watches=(watch,) if is_watched else (),
    )


class Stage:
    """Dispatches over one candidate and one baseline."""

    def __init__(self, baseline: Script | None = None) -> None:
        self.metrics = GatewayMetrics()
        self.is_guarded = True
        self.gates = TrafficGates(lambda *_: self.is_guarded)
        self.attempts: dict[str, Attempt] = {}
        self.upstreams: dict[str, FakeUpstream] = {}
        self.scripts: dict[str, Script | None] = {"full": baseline, "int8": None}
        for name in ("full", "int8"):
            upstream = self.upstreams[name] = FakeUpstream("demo", self._answer(name))
            gate = self.gates.of("demo", name)
            cells = cells_of(self.metrics, name)
            self.attempts[name] = Attempt(name, upstream, cells, gate=gate)
        self.gates.apply({"demo": model()})

    def _answer(self, name: str) -> Any:
        def answer(request: UpstreamRequest) -> Script:
            script = self.scripts[name]
            return _stream(Engine(name), json.loads(request.body)) if script is None else script

        return answer

    def dispatch(
        self, attempts: tuple[str, ...] = ("int8", "full", "full"), **more: Any
    ) -> tuple[Dispatch, RecordingClient]:
        body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], **more}
        request = UpstreamRequest(CHAT, b"", json.dumps(body).encode())
        client = RecordingClient()
        plan = Plan(attempts, "full", "facts")
        return (
            Dispatch(plan, self.attempts, request, client, ANY, services()),
            client,
        )

    def attempts_of(self, variant: str, outcome: Outcome) -> int:
        return attempts_of(self.metrics, variant, outcome)

    @property
    def late_starts(self) -> int:
        return self.metrics.post_rollback_starts.cell("demo", "int8").value


def _stream(build: Engine, body: dict[str, Any], count: int | None = None) -> Script:
    events = build.events(CHAT.decode(), body)
    ends = [End()] if count is None else [Hang()]
    return [Head(headers=tuple(EVENTS)), *(Body(each) for each in events[:count]), *ends]


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


# Which gates shut


@pytest.mark.parametrize("flag", [{"blocked": ("int8",)}, {"killed": True}])
def test_a_blocked_or_killed_candidate_is_shut_and_the_baseline_never(flag: dict[str, Any]) -> None:
    gates = TrafficGates()
    full, int8 = gates.of("demo", "full"), gates.of("demo", "int8")
    assert gates.apply({"demo": model(**flag)}) == {int8}
    assert (full.is_shut, int8.is_shut) == (False, True)


def test_a_candidate_that_is_gone_from_the_table_is_shut() -> None:
    gates = TrafficGates()
    gone, other = gates.of("demo", "int2"), gates.of("other", "int8")
    gates.apply({"demo": model()})
    assert gone.is_shut
    assert other.is_shut


def test_a_gate_stays_one_object_and_opens_again() -> None:
    gates = TrafficGates()
    gate = gates.of("demo", "int8")
    gates.apply({"demo": model(blocked=("int8",))})
    assert gates.of("demo", "int8") is gate
    gates.apply({"demo": model()})
    assert not gate.is_shut


def test_requests_move_once_and_only_where_the_rollout_says_so() -> None:
    gates = TrafficGates()
    gate = gates.of("demo", "int8")
    assert gates.apply({"demo": model(in_flight="finish", blocked=("int8",))}) == set()
    gates.apply({"demo": model()})
    # The rollback may take the watch out of the table: what it said last holds.
    assert gates.apply({"demo": model(is_watched=False, blocked=("int8",))}) == {gate}
    assert gates.apply({"demo": model(is_watched=False, blocked=("int8",))}) == set()


# What may start


async def test_a_plan_from_before_starts_no_candidate_after() -> None:
    stage = Stage()
    dispatch, client = stage.dispatch(stream=True)
    stage.gates.apply({"demo": model(blocked=("int8",))})
    dispatch.start()
    await client.over.wait()
    assert client.text() == TEXT
    assert stage.upstreams["int8"].requests == []
    assert (dispatch.attempt.name, dispatch.failover) == ("full", Outcome.ROLLED_BACK)
    assert stage.late_starts == 0


async def test_the_baseline_of_a_plan_answers_although_its_model_left_the_table() -> None:
    stage = Stage()
    stage.scripts["int8"] = [Fail(Outcome.DIED)]
    dispatch, client = stage.dispatch(stream=True)
    dispatch.start()
    stage.gates.apply({})
    await client.over.wait()
    assert client.text() == TEXT


async def test_no_candidate_stands_in_that_was_rolled_back_meanwhile() -> None:
    stage = Stage(baseline=[Fail(Outcome.REFUSED)])
    dispatch, client = stage.dispatch(("full", "full", "int8"))
    dispatch.start()
    stage.gates.apply({"demo": model(killed=True)})
    await client.over.wait()
    assert client.error is not None
    assert client.error.reported_code == "upstream_unavailable"
    assert stage.upstreams["int8"].requests == []


@pytest.mark.parametrize("quarantined", [("facts",), ("code",)])
async def test_no_candidate_stands_in_for_a_slice_that_was_quarantined_meanwhile(
    quarantined: tuple[str, ...],
) -> None:
    stage = Stage(baseline=[Fail(Outcome.REFUSED)])
    stage.scripts["int8"] = whole({"choices": []})
    dispatch, client = stage.dispatch(("full", "full", "int8"))
    dispatch.start()
    stage.gates.apply({"demo": model(quarantined=quarantined)})
    await client.over.wait()
    assert (client.error is None) == (quarantined == ("code",)) == client.is_finished


async def test_no_candidate_stands_in_once_the_lease_is_over() -> None:
    stage = Stage(baseline=[Fail(Outcome.REFUSED)])
    dispatch, client = stage.dispatch(("full", "full", "int8"))
    dispatch.start()
    stage.is_guarded = False
    await client.over.wait()
    assert client.error is not None
    assert client.error.reported_code == "upstream_unavailable"
    assert stage.upstreams["int8"].requests == []


async def test_a_start_past_a_shut_gate_is_counted() -> None:
    stage = Stage()
    dispatch, _ = stage.dispatch()
    stage.gates.apply({"demo": model(killed=True)})
    stage.attempts["int8"].begin(UpstreamRequest(CHAT, b"", b'{"model":"demo"}'), dispatch)
    assert stage.late_starts == 1


# What moves


async def test_a_request_that_the_client_has_nothing_of_is_answered_by_the_baseline() -> None:
    stage = Stage()
    stage.scripts["int8"] = [Hang()]
    dispatch, client = stage.dispatch(stream=True)
    dispatch.start()
    move([dispatch], stage.gates.apply({"demo": model(blocked=("int8",))}))
    await client.over.wait()
    assert client.text() == TEXT
    assert stage.upstreams["int8"].streams[0].is_aborted
    assert stage.attempts_of("int8", Outcome.ROLLED_BACK) == 1


async def test_a_stream_is_continued_by_the_baseline() -> None:
    stage = Stage()
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
    stage.scripts["int8"] = _stream(Engine("int8"), body, 5)
    dispatch, client = stage.dispatch(stream=True)
    dispatch.start()
    await client.began.wait()
    move([dispatch], stage.gates.apply({"demo": model(blocked=("int8",))}))
    await client.over.wait()
    assert client.is_finished
    assert client.text() == TEXT
    assert {event["id"].split("-")[1] for event in client.events()} == {"int8"}
    assert stage.upstreams["int8"].streams[0].is_aborted
    assert dispatch.is_continued


@pytest.mark.parametrize("more", [{"tools": [{"type": "function"}]}, {"n": 2}, {"logprobs": True}])
async def test_a_stream_that_could_not_be_continued_ends_by_itself(more: dict[str, Any]) -> None:
    stage = Stage()
    dispatch, client = stage.dispatch(stream=True, **more)
    dispatch.start()
    await client.began.wait()
    move([dispatch], stage.gates.apply({"demo": model(blocked=("int8",))}))
    await client.over.wait()
    assert client.is_finished
    assert stage.upstreams["full"].requests == []
    assert stage.attempts_of("int8", Outcome.OK) == 1


async def test_a_stream_that_has_its_finish_reason_ends_by_itself() -> None:
    stage = Stage()
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
    stage.scripts["int8"] = _stream(Engine("int8"), body, len(Engine("int8").tokens) + 2)
    dispatch, client = stage.dispatch(stream=True)
    dispatch.start()
    await _until(lambda: b'"finish_reason":"stop"' in client.body)
    assert not dispatch.leave_candidate()


async def test_a_stand_in_for_a_baseline_that_is_away_stays() -> None:
    stage = Stage(baseline=[Fail(Outcome.REFUSED)])
    stage.scripts["int8"] = whole({"choices": []})
    dispatch, client = stage.dispatch(("full", "full", "int8"))
    dispatch.start()
    await _until(lambda: bool(stage.upstreams["int8"].requests))
    assert not dispatch.leave_candidate()
    await client.over.wait()
    assert client.is_finished


async def test_an_answer_that_is_complete_when_its_turn_comes_is_not_asked_for_again() -> None:
    stage = Stage(baseline=whole({"who": "full"}))
    stage.scripts["int8"] = whole({"who": "int8"})
    dispatch, client = stage.dispatch()
    dispatch.start()
    await client.over.wait()
    assert not dispatch.leave_candidate()
    await asyncio.sleep(0)
    assert stage.upstreams["full"].requests == []
    assert stage.attempts_of("int8", Outcome.ROLLED_BACK) == 0


@pytest.mark.parametrize("events", [None, 3])
async def test_nothing_is_asked_for_a_client_that_is_gone(events: int | None) -> None:
    stage = Stage()
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
    script = [Hang()] if events is None else _stream(Engine("int8"), body, events)
    stage.scripts["int8"] = script
    dispatch, client = stage.dispatch(stream=True)
    dispatch.start()
    if events is not None:
        await client.began.wait()
    dispatch.abort()
    assert not dispatch.leave_candidate()
    assert stage.attempts_of("int8", Outcome.ROLLED_BACK) == 0


async def test_the_baselines_own_requests_stay_where_they_are() -> None:
    stage = Stage(baseline=[Hang()])
    dispatch, _ = stage.dispatch(("full", "full"))
    dispatch.start()
    assert not dispatch.leave_candidate()
    move([dispatch], {TrafficGate()})
    assert not stage.upstreams["full"].streams[0].is_aborted


async def test_many_are_moved_over_several_turns() -> None:
    stage = Stage()
    stage.scripts["int8"] = [Hang()]
    pairs = [stage.dispatch(stream=True) for _ in range(50)]
    for dispatch, _ in pairs:
        dispatch.start()
    gates = stage.gates.apply({"demo": model(blocked=("int8",))})
    move([dispatch for dispatch, _ in pairs], gates)
    await asyncio.sleep(0)
    assert 0 < stage.attempts_of("int8", Outcome.ROLLED_BACK) < 50
    for _, client in pairs:
        await client.over.wait()
    assert stage.attempts_of("int8", Outcome.ROLLED_BACK) == 50
    assert stage.late_starts == 0
