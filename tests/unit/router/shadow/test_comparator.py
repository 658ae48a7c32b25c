import asyncio
import json

import pytest

from penumbra.monitoring.observations import Arm
from penumbra.monitoring.signals.lengths import LEAST_ANSWERS
from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.fake import Body, Fail, Script, events, whole
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS, answer_bytes, mirrored
from tests.support.shadow import HANGING, ComparatorSetup, compare, running, until, watch


async def test_both_arms_score_the_clients_tokens_and_the_pair_is_reported() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].shift = -0.5
    await compare(setup, mirrored("r", slice="json", session=7))
    ((run, pair),) = setup.reports.pairs
    assert (run.model, run.candidate, run.id) == ("demo", "int8", "run-int8")
    assert (pair.request_id, pair.slice, pair.session, pair.tokens) == ("r", "json", 7, 5)
    assert (pair.arm, pair.answered_by, pair.missing) == (Arm.CANDIDATE, "full", None)
    assert pair.displacement is not None
    assert 0.0 < pair.displacement < 1.0
    assert pair.kl is not None
    assert pair.harm is None
    for build in setup.builds.values():
        (body,) = build.scores
        assert body["prompt"] == [*PROMPT_IDS, *ANSWER_IDS]


async def test_equal_builds_are_not_displaced() -> None:
    setup = ComparatorSetup(watch())
    await compare(setup, mirrored())
    (pair,) = setup.pairs
    assert (pair.displacement, pair.kl, pair.agreement, pair.divergence) == (0.0, 0.0, 1.0, None)


async def test_an_answer_of_the_candidate_counts_the_other_way_round() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].shift = -0.5
    from_full = ComparatorSetup(watch())
    from_full.builds["int8"].shift = -0.5
    await compare(setup, mirrored(variant="int8"))
    await compare(from_full, mirrored())
    (by_candidate,), (by_baseline,) = setup.pairs, from_full.pairs
    assert by_candidate.answered_by == "int8"
    # The baseline finds the tokens likelier than the candidate does: nothing is lost that way.
    assert by_candidate.displacement == 0.0
    assert by_baseline.displacement is not None
    assert by_baseline.displacement > 0.0


async def test_the_baseline_is_scored_once_for_several_candidates() -> None:
    setup = ComparatorSetup(watch("int8"), watch("int4"))
    setup.builds["int4"].shift = -1.0
    await compare(setup, mirrored(candidates=("int8", "int4")), expected=2)
    assert [len(setup.builds[name].scores) for name in ("full", "int8", "int4")] == [1, 1, 1]
    assert {run.candidate for run, _ in setup.reports.pairs} == {"int8", "int4"}


async def test_another_candidates_answer_says_nothing_of_this_one() -> None:
    setup = ComparatorSetup(watch("int8"), watch("int4"))
    await compare(setup, mirrored(variant="int8", candidates=("int8", "int4")), expected=2)
    assert [run.candidate for run, _ in setup.reports.pairs] == ["int8"]
    assert setup.reports.sheds == [("int4", "other_arm")]
    assert setup.builds["int4"].scores == []


async def test_a_candidate_that_gives_no_score_is_missing_not_shed() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].score = whole({}, 500)
    await compare(setup, mirrored())
    (pair,) = setup.pairs
    assert (pair.missing, pair.displacement) == ("score: server_error", None)
    assert setup.reports.sheds == []


async def test_a_candidate_that_is_too_slow_is_missing() -> None:
    setup = ComparatorSetup(watch(), deadlines={"score_seconds": 0.05})
    setup.builds["int8"].score = HANGING
    await compare(setup, mirrored())
    assert [pair.missing for pair in setup.pairs] == ["score: timeout"]


async def test_a_baseline_that_gives_no_score_is_shed_not_evidence() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["full"].score = whole({}, 503)
    await compare(setup, mirrored())
    assert setup.pairs == []
    assert setup.reports.sheds == [("int8", "baseline_score")]


@pytest.mark.parametrize("asked", ["score", "answer"])
async def test_a_limit_of_the_comparators_own_is_shed_not_evidence(asked: str) -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setattr(setup.builds["int8"], asked, (Fail(Outcome.GATEWAY_LIMIT),))
    await compare(setup, mirrored())
    assert setup.pairs == []
    assert setup.reports.sheds == [("int8", "fault")]


NULL_ROWS = [None, *({str(token): {"logprob": None}} for token in (*PROMPT_IDS, *ANSWER_IDS)[1:])]


@pytest.mark.parametrize(
    "score",
    [
        whole({"choices": [{"prompt_logprobs": NULL_ROWS}]}),
        whole({"error": {"message": "Out of range float values are not JSON compliant"}}, 500),
    ],
    ids=["null", "unwritable"],
)
async def test_log_probabilities_that_are_not_finite_are_reported(score: Script) -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].score = score
    await compare(setup, mirrored())
    (pair,) = setup.pairs
    assert pair.not_finite
    assert pair.displacement is None


async def test_the_other_arm_streams_where_the_client_got_a_stream() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].answer = events(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "It"}}]},
        {"choices": [{"index": 0, "delta": {"content": " rains."}, "finish_reason": "stop"}]},
    )
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    first = {"index": 0, "delta": {"role": "assistant", "content": ""}}
    last = {
        "index": 0,
        "delta": {"content": "It rains."},
        "finish_reason": "stop",
        "token_ids": ANSWER_IDS,
    }
    sent = events({"prompt_token_ids": PROMPT_IDS, "choices": [first]}, {"choices": [last]})
    answer = b"".join(step.data for step in sent if isinstance(step, Body))
    await compare(
        setup, mirrored("r", body=json.dumps(body).encode(), is_stream=True, answer=answer)
    )
    (pair,) = setup.pairs
    assert (pair.harm, pair.missing) == (0, None)
    (asked,) = setup.builds["int8"].answers
    assert asked["stream"] is True


async def test_the_other_arm_answers_the_same_request_whole_and_marked() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].text = ""
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 40,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "seed": 3,
    }
    await compare(setup, mirrored("r", body=json.dumps(body).encode()))
    (pair,) = setup.pairs
    assert (pair.harm, pair.failed, pair.failed_baseline) == (1, ("empty",), ())
    (asked,) = setup.builds["int8"].answers
    wanted = {name: value for name, value in body.items() if name != "stream_options"}
    assert asked == {**wanted, "stream": False}
    request = next(r for r in setup.builds["int8"].requests if r.path == b"/v1/chat/completions")
    assert b"x-penumbra-shadow: 1\r\n" in request.headers
    assert setup.builds["full"].answers == []


async def test_an_answer_of_unusual_length_is_harm_once_a_length_is_usual() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].text = "No."
    answer = answer_bytes(" ".join(f"Case {i} is another one." for i in range(12)))
    requests = [mirrored(f"r{i}", answer=answer) for i in range(LEAST_ANSWERS + 1)]
    await compare(setup, *requests, expected=len(requests))
    assert [pair.failed for pair in setup.pairs] == [()] * LEAST_ANSWERS + [("length_drift",)]
    assert setup.pairs[-1].harm == 1


async def test_no_answer_of_the_candidate_is_harm() -> None:
    setup = ComparatorSetup(watch(generate=1.0), deadlines={"generate_seconds": 0.05})
    setup.builds["int8"].answer = HANGING
    await compare(setup, mirrored(total_seconds=0.04))
    (pair,) = setup.pairs
    # Lateness is judged beside the other arm's: as a failure it would have nothing beside it.
    assert (pair.harm, pair.missing) == (1, None)
    assert pair.displacement == 0.0


@pytest.mark.parametrize("variant", ["full", "int8"])
async def test_an_answer_that_takes_long_in_both_builds_is_no_harm(variant: str) -> None:
    setup = ComparatorSetup(watch(generate=1.0), deadlines={"generate_seconds": 0.05})
    setup.builds["int8"].answer = setup.builds["full"].answer = HANGING
    await compare(setup, mirrored(variant=variant, total_seconds=0.06))
    (pair,) = setup.pairs
    assert (pair.harm, pair.missing) == (None, None)
    assert pair.displacement == 0.0


@pytest.mark.parametrize(("variant", "harm"), [("full", -1), ("int8", 1)])
async def test_an_answer_that_came_too_late_for_a_shadow_answer_counts_as_missing(
    variant: str, harm: int
) -> None:
    setup = ComparatorSetup(watch(generate=1.0), deadlines={"generate_seconds": 0.05})
    await compare(setup, mirrored(variant=variant, total_seconds=0.06))
    (pair,) = setup.pairs
    assert (pair.harm, pair.missing) == (harm, None)


async def test_the_time_of_an_answer_whose_client_was_slow_says_nothing() -> None:
    setup = ComparatorSetup(watch(generate=1.0), deadlines={"generate_seconds": 0.05})
    setup.builds["int8"].answer = HANGING
    await compare(setup, mirrored(total_seconds=0.06, was_paused=True))
    (pair,) = setup.pairs
    assert (pair.harm, pair.missing) == (None, None)
    assert setup.builds["int8"].answers == []


async def test_no_answer_of_the_baseline_alone_is_harm_of_the_baseline() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["full"].answer = whole({}, 500)
    await compare(setup, mirrored(variant="int8"))
    (pair,) = setup.pairs
    assert (pair.harm, pair.missing) == (-1, None)
    assert pair.failed_baseline == ("no_answer",)


@pytest.mark.parametrize("variant", ["full", "int8"])
async def test_a_shadow_request_that_both_builds_refuse_says_nothing(variant: str) -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].answer = setup.builds["full"].answer = whole({"error": {}}, 400)
    await compare(setup, mirrored(variant=variant))
    (pair,) = setup.pairs
    assert (pair.harm, pair.missing, pair.failed) == (None, None, ())
    assert pair.displacement == 0.0


async def test_a_shadow_request_that_only_the_candidate_refuses_is_its_failure() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].answer = whole({"error": {}}, 400)
    await compare(setup, mirrored())
    (pair,) = setup.pairs
    assert (pair.harm, pair.missing) == (1, "answer: status_400")
    assert len(setup.builds["full"].answers) == 1


async def test_an_answer_without_a_limit_is_bounded() -> None:
    setup = ComparatorSetup(watch(generate=1.0), generation_tokens=100)
    await compare(setup, mirrored())
    (asked,) = setup.builds["int8"].answers
    assert asked["max_tokens"] == 100


async def test_the_aa_arm_compares_the_baseline_with_itself() -> None:
    setup = ComparatorSetup(watch(aa=1.0, generate=1.0))
    setup.builds["int8"].shift = -2.0
    await compare(setup, mirrored(), expected=2)
    candidate, aa = setup.pairs
    assert (candidate.arm, aa.arm) == (Arm.CANDIDATE, Arm.BASELINE)
    assert (aa.displacement, aa.harm) == (0.0, 0)
    assert candidate.displacement != 0.0
    assert len(setup.builds["full"].scores) == 2


async def test_a_suspicious_slice_has_its_own_share_of_the_aa_arm() -> None:
    setup = ComparatorSetup(watch(aa=0.0, generate=0.0, aa_slices={"json": 1.0}))
    requests = [mirrored("a", slice="json"), mirrored("b", slice="other")]
    await compare(setup, *requests, expected=3)
    baseline = [pair.slice for pair in setup.pairs if pair.arm is Arm.BASELINE]
    assert baseline == ["json"]


async def test_a_watch_that_changes_meanwhile_changes_no_comparison_under_way() -> None:
    setup = ComparatorSetup(watch(generate=1.0), deadlines={"generate_seconds": 0.05})
    setup.builds["int8"].answer = HANGING
    async with running(setup):
        setup.comparator.offer(mirrored("a", total_seconds=0.01), 100)
        await asyncio.sleep(0.01)
        setup.apply(1, watch(generate=0.0, aa=1.0))
        await until(lambda: bool(setup.pairs))
        # The same prompt again: it was not compared with the A/A arm before.
        setup.comparator.offer(mirrored("a", total_seconds=0.01), 100)
        await until(lambda: len(setup.pairs) >= 3)
    assert [(pair.arm, pair.harm) for pair in setup.pairs] == [
        (Arm.CANDIDATE, 1),
        (Arm.CANDIDATE, None),
        (Arm.BASELINE, None),
    ]


async def test_which_requests_generate_is_fixed_by_their_id_and_the_run() -> None:
    chosen = []
    for _ in range(2):
        setup = ComparatorSetup(watch(generate=0.3))
        await compare(setup, *(mirrored(f"r{n}") for n in range(60)), expected=60)
        chosen.append({pair.request_id for pair in setup.pairs if pair.harm is not None})
    assert chosen[0] == chosen[1]
    # Binomial(60, .3).
    assert 5 <= len(chosen[0]) <= 33
    other = ComparatorSetup(watch(generate=0.3, run="another"))
    await compare(other, *(mirrored(f"r{n}") for n in range(60)), expected=60)
    assert {pair.request_id for pair in other.pairs if pair.harm is not None} != chosen[0]
