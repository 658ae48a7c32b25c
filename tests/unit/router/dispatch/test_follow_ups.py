"""Requests that go on from a stored response, which only the build that gave it knows."""

import json

import pytest

from penumbra.monitoring.vocabulary import FAILURES, Outcome
from penumbra.router.dispatch.request_shape import RequestShape
from penumbra.router.upstream.fake import Fail, Script, whole
from tests.unit.router.dispatch.test_dispatch import Run

PATH = b"/v1/responses"
GOOD = {"id": "resp_2", "status": "completed", "output": []}
UNKNOWN = {"error": {"message": "Response 'resp_1' not found.", "type": "NotFound", "code": 404}}
FOLLOW_UP = RequestShape(goes_on=True)
BASELINE_FIRST = ("full", "full", "int8")


def follow_up(
    candidate: list[Script],
    baseline: list[Script],
    attempts: tuple[str, ...] = ("int8", "full", "full"),
    shape: RequestShape = FOLLOW_UP,
) -> Run:
    return Run(candidate, baseline, attempts=attempts, path=PATH, shape=shape)


def failures(run: Run) -> int:
    return sum(run.attempts(name, each) for name in ("full", "int8") for each in FAILURES)


async def test_a_candidate_that_does_not_know_the_response_is_replaced_and_not_charged() -> None:
    run = follow_up([whole(UNKNOWN, status=404)], [whole(GOOD)])
    client = await run.to_end()
    assert (client.status, json.loads(client.body)) == (200, GOOD)
    assert run.attempts("int8", Outcome.UNSUPPORTED) == 1
    assert (failures(run), client.repeats) == (0, 1)


async def test_a_404_of_any_other_request_is_the_candidates_own() -> None:
    run = follow_up([whole(UNKNOWN, status=404)], [whole(GOOD)], shape=RequestShape())
    assert (await run.to_end()).status == 200
    assert run.attempts("int8", Outcome.REJECTED) == 1


async def test_another_refusal_of_a_follow_up_is_the_candidates_own() -> None:
    run = follow_up([whole(UNKNOWN, status=401)], [whole(GOOD)])
    assert (await run.to_end()).status == 200
    assert run.attempts("int8", Outcome.REJECTED) == 1


async def test_a_baseline_that_does_not_know_the_response_is_replaced_by_a_live_candidate() -> None:
    run = follow_up([whole(GOOD)], [whole(UNKNOWN, status=404)], BASELINE_FIRST)
    client = await run.to_end()
    assert (client.status, json.loads(client.body)) == (200, GOOD)
    assert (failures(run), client.repeats) == (0, 1)
    assert run.dispatch.attempt.name == "int8"


@pytest.mark.parametrize("attempts", [("int8", "full", "full"), BASELINE_FIRST])
async def test_a_response_that_no_build_knows_is_no_failure(attempts: tuple[str, ...]) -> None:
    unknown = whole(UNKNOWN, status=404)
    run = follow_up([unknown], [unknown], attempts)
    client = await run.to_end()
    assert (client.status, json.loads(client.body)) == (404, UNKNOWN)
    assert failures(run) == 0
    assert [len(each.requests) for each in run.upstreams.values()] == [1, 1]


async def test_without_a_live_candidate_the_baselines_answer_is_the_clients() -> None:
    run = follow_up([], [whole(UNKNOWN, status=404)], ("full", "full"))
    client = await run.to_end()
    assert (client.status, client.repeats) == (404, 0)
    assert len(run.upstreams["full"].requests) == 1


async def test_if_the_next_build_fails_the_first_ones_refusal_is_the_clients() -> None:
    run = follow_up([[Fail(Outcome.DIED)]], [whole(UNKNOWN, status=404)], BASELINE_FIRST)
    client = await run.to_end()
    assert (client.status, json.loads(client.body)) == (404, UNKNOWN)
