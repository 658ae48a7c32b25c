"""The scoring of the `Upstream` port, on every implementation and in both dialects."""

import json
import math

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.calls import NotFinite, UpstreamError
from penumbra.router.upstream.fake import Script, scored, whole
from penumbra.router.upstream.port import Scores, UpstreamRequest
from penumbra.router.upstream.scoring_wire import COMPLETIONS_PATH, SHORT_PATH
from tests.support.upstreams import Make


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


class Replica:
    """One of our own replicas, and what it was asked."""

    def __init__(self, *answers: Script) -> None:
        self.paths: list[bytes] = []
        self._answers = list(answers)

    def __call__(self, request: UpstreamRequest) -> Script:
        self.paths.append(request.path)
        if request.path == COMPLETIONS_PATH.encode():
            return whole(scored(json.loads(request.body)))
        if self._answers:
            return self._answers.pop(0)
        body = json.loads(request.body)
        count = len(body["token_ids"]) - body["start"]
        return whole({"logprobs": [-0.5] * (count - 1) + [None], "top_ids": [9] * count})


async def test_our_own_replicas_are_asked_the_short_way(make: Make) -> None:
    replica = Replica()
    async with make(replica) as upstream:
        scores = await upstream.score([5, 6, 7, 8], 2)
        await upstream.score([5, 6, 7, 8], 2)
    assert scores.top_ids == (9, 9)
    assert scores.logprobs[0] == -0.5
    assert math.isnan(scores.logprobs[1])
    assert replica.paths == [SHORT_PATH.encode()] * 2


@pytest.mark.parametrize(
    "told",
    [
        whole({"error": {"message": "Not Found"}}, 404),
        whole({"object": "list", "data": []}),
        whole({"logprobs": [-1.0], "top_ids": [1]}),
    ],
    ids=["not found", "something else", "of other tokens"],
)
async def test_any_other_server_is_asked_so_once(make: Make, told: Script) -> None:
    replica = Replica(told)
    async with make(replica) as upstream:
        first = await upstream.score([5, 6, 7, 8], 1)
        assert await upstream.score([5, 6, 7, 8], 1) == first
    assert replica.paths == [SHORT_PATH.encode(), *[COMPLETIONS_PATH.encode()] * 2]


async def test_a_replica_that_fails_is_not_asked_the_long_way_instead(make: Make) -> None:
    good = whole({"logprobs": [-1.0], "top_ids": [1]})
    replica = Replica(good, whole({}, 500))
    async with make(replica) as upstream:
        assert await upstream.score([1, 2], 1) == Scores((-1.0,), (1,))
        with pytest.raises(UpstreamError):
            await upstream.score([1, 2], 1)
    assert COMPLETIONS_PATH.encode() not in replica.paths


async def test_a_server_that_is_still_down_may_turn_out_to_be_ours(make: Make) -> None:
    answers = [whole({}, 503), whole({}, 503)]

    def answer(request: UpstreamRequest) -> Script:
        if answers:
            return answers.pop()
        return whole({"logprobs": [-1.0], "top_ids": [1]})

    async with make(answer) as upstream:
        with pytest.raises(UpstreamError):
            await upstream.score([1, 2], 1)
        assert await upstream.score([1, 2], 1) == Scores((-1.0,), (1,))
