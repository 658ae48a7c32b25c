import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import pytest

from monitoring.evidence import Arm
from monitoring.signals.lengths import LEAST_ANSWERS
from router.mirrored import Mirrored
from router.shadow.admission import Gauges
from router.testing import Script, whole
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS, answer_bytes, mirrored
from tests.support.shadow import HANGING, Bench, watch


@contextlib.asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.create_task(bench.comparator.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)


async def compare(bench: Bench, *requests: Mirrored, expected: int = 1) -> None:
    """Offer mirrored requests and wait for so many pairs and sheds together."""
    async with running(bench):
        for request in requests:
            bench.comparator.offer(request, 100)
        reports = bench.reports
        await until(lambda: len(reports.pairs) + len(reports.sheds) >= expected)


async def test_both_arms_score_the_clients_tokens_and_the_pair_is_reported() -> None:
    bench = Bench(watch())
    bench.builds["int8"].shift = -0.5
    await compare(bench, mirrored("r", slice="json", session=7))
    ((run, pair),) = bench.reports.pairs
    assert (run.model, run.candidate, run.id) == ("demo", "int8", "run-int8")
    assert (pair.request_id, pair.slice, pair.session, pair.tokens) == ("r", "json", 7, 5)
    assert (pair.arm, pair.answered_by, pair.missing) == (Arm.CANDIDATE, "full", None)
    assert pair.displacement is not None
    assert 0.0 < pair.displacement < 1.0
    assert pair.kl is not None
    assert pair.harm is None
    for build in bench.builds.values():
        (body,) = build.scores
        assert body["prompt"] == [*PROMPT_IDS, *ANSWER_IDS]


async def test_equal_builds_are_not_displaced() -> None:
    bench = Bench(watch())
    await compare(bench, mirrored())
    (pair,) = bench.pairs
    assert (pair.displacement, pair.kl, pair.agreement, pair.divergence) == (0.0, 0.0, 1.0, None)


async def test_an_answer_of_the_candidate_counts_the_other_way_round() -> None:
    bench = Bench(watch())
    bench.builds["int8"].shift = -0.5
    from_full = Bench(watch())
    from_full.builds["int8"].shift = -0.5
    await compare(bench, mirrored(variant="int8"))
    await compare(from_full, mirrored())
    (by_candidate,), (by_baseline,) = bench.pairs, from_full.pairs
    assert by_candidate.answered_by == "int8"
    # The baseline finds the tokens likelier than the candidate does: nothing is lost that way.
    assert by_candidate.displacement == 0.0
    assert by_baseline.displacement is not None
    assert by_baseline.displacement > 0.0


async def test_the_baseline_is_scored_once_for_several_candidates() -> None:
    bench = Bench(watch("int8"), watch("int4"))
    bench.builds["int4"].shift = -1.0
    await compare(bench, mirrored(candidates=("int8", "int4")), expected=2)
    assert [len(bench.builds[name].scores) for name in ("full", "int8", "int4")] == [1, 1, 1]
    assert {run.candidate for run, _ in bench.reports.pairs} == {"int8", "int4"}


async def test_another_candidates_answer_says_nothing_of_this_one() -> None:
    bench = Bench(watch("int8"), watch("int4"))
    await compare(bench, mirrored(variant="int8", candidates=("int8", "int4")), expected=2)
    assert [run.candidate for run, _ in bench.reports.pairs] == ["int8"]
    assert bench.reports.sheds == [("int4", "other_arm")]
    assert bench.builds["int4"].scores == []


async def test_a_candidate_that_gives_no_score_is_missing_not_shed() -> None:
    bench = Bench(watch())
    bench.builds["int8"].score = whole({}, 500)
    await compare(bench, mirrored())
    (pair,) = bench.pairs
    assert (pair.missing, pair.displacement) == ("score: server_error", None)
    assert bench.reports.sheds == []


async def test_a_candidate_that_is_too_slow_is_missing() -> None:
    bench = Bench(watch(), deadlines={"score_seconds": 0.05})
    bench.builds["int8"].score = HANGING
    await compare(bench, mirrored())
    assert [pair.missing for pair in bench.pairs] == ["score: timeout"]


async def test_a_baseline_that_gives_no_score_is_shed_not_evidence() -> None:
    bench = Bench(watch())
    bench.builds["full"].score = whole({}, 503)
    await compare(bench, mirrored())
    assert bench.pairs == []
    assert bench.reports.sheds == [("int8", "baseline_score")]


NULL_ROWS = [None, *({str(token): {"logprob": None}} for token in (*PROMPT_IDS, *ANSWER_IDS)[1:])]


@pytest.mark.parametrize(
    "score",
    [
        whole({"choices": [{"prompt_logprobs": NULL_ROWS}]}),
        whole({"error": {"message": "Out of range float values are not JSON compliant"}}, 500),
    ],
    ids=["null", "unwritable"],
)
async def test_numbers_that_are_none_are_told(score: Script) -> None:
    bench = Bench(watch())
    bench.builds["int8"].score = score
    await compare(bench, mirrored())
    (pair,) = bench.pairs
    assert pair.not_finite
    assert pair.displacement is None


async def test_the_other_arm_answers_the_same_request_unstreamed_and_marked() -> None:
    bench = Bench(watch(generate=1.0))
    bench.builds["int8"].text = ""
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 40,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "seed": 3,
    }
    await compare(bench, mirrored("r", body=json.dumps(body).encode()))
    (pair,) = bench.pairs
    assert (pair.harm, pair.failed, pair.failed_baseline) == (1, ("empty",), ())
    (asked,) = bench.builds["int8"].answers
    wanted = {name: value for name, value in body.items() if name != "stream_options"}
    assert asked == {**wanted, "stream": False}
    request = next(r for r in bench.builds["int8"].requests if r.path == b"/v1/chat/completions")
    assert b"x-penumbra-shadow: 1\r\n" in request.headers
    assert bench.builds["full"].answers == []


async def test_an_answer_of_unusual_length_is_harm_once_a_length_is_usual() -> None:
    bench = Bench(watch(generate=1.0))
    bench.builds["int8"].text = "No."
    answer = answer_bytes(" ".join(f"Case {i} is another one." for i in range(12)))
    requests = [mirrored(f"r{i}", answer=answer) for i in range(LEAST_ANSWERS + 1)]
    await compare(bench, *requests, expected=len(requests))
    assert [pair.failed for pair in bench.pairs] == [()] * LEAST_ANSWERS + [("length_drift",)]
    assert bench.pairs[-1].harm == 1


async def test_no_answer_of_the_candidate_is_harm() -> None:
    bench = Bench(watch(generate=1.0), deadlines={"generate_seconds": 0.05})
    bench.builds["int8"].answer = HANGING
    await compare(bench, mirrored())
    (pair,) = bench.pairs
    assert (pair.harm, pair.missing) == (1, "answer: timeout")
    assert pair.displacement == 0.0


async def test_no_answer_of_the_baseline_says_nothing_of_harm() -> None:
    bench = Bench(watch(generate=1.0))
    bench.builds["full"].answer = whole({}, 500)
    await compare(bench, mirrored(variant="int8"))
    (pair,) = bench.pairs
    assert (pair.harm, pair.missing) == (None, None)


async def test_an_answer_without_a_limit_is_bounded() -> None:
    bench = Bench(watch(generate=1.0), generation_tokens=100)
    await compare(bench, mirrored())
    (asked,) = bench.builds["int8"].answers
    assert asked["max_tokens"] == 100


async def test_the_aa_arm_compares_the_baseline_with_itself() -> None:
    bench = Bench(watch(aa=1.0, generate=1.0))
    bench.builds["int8"].shift = -2.0
    await compare(bench, mirrored(), expected=2)
    candidate, aa = bench.pairs
    assert (candidate.arm, aa.arm) == (Arm.CANDIDATE, Arm.BASELINE)
    assert (aa.displacement, aa.harm) == (0.0, 0)
    assert candidate.displacement != 0.0
    assert len(bench.builds["full"].scores) == 2


async def test_which_requests_generate_is_fixed_by_their_id_and_the_run() -> None:
    chosen = []
    for _ in range(2):
        bench = Bench(watch(generate=0.3))
        await compare(bench, *(mirrored(f"r{n}") for n in range(60)), expected=60)
        chosen.append({pair.request_id for pair in bench.pairs if pair.harm is not None})
    assert chosen[0] == chosen[1]
    # Binomial(60, .3).
    assert 5 <= len(chosen[0]) <= 33
    other = Bench(watch(generate=0.3, run="another"))
    await compare(other, *(mirrored(f"r{n}") for n in range(60)), expected=60)
    assert {pair.request_id for pair in other.pairs if pair.harm is not None} != chosen[0]


async def test_a_prompt_has_one_bet_and_a_session_one_turn_a_run() -> None:
    bench = Bench(watch("int8"), watch("int4"))
    await compare(
        bench,
        mirrored("a", prompt_hash=1, session=5),
        mirrored("b", prompt_hash=1),
        mirrored("c", prompt_hash=2, session=5),
        mirrored("d", prompt_hash=1, candidates=("int4",)),
        mirrored("e", prompt_hash=3),
        expected=5,
    )
    assert sorted((run.candidate, pair.request_id) for run, pair in bench.reports.pairs) == [
        ("int4", "d"),
        ("int8", "a"),
        ("int8", "e"),
    ]
    assert bench.reports.sheds == [("int8", "repeated_prompt"), ("int8", "repeated_session")]


async def test_a_new_run_begins_with_fresh_bets() -> None:
    bench = Bench(watch())
    await compare(bench, mirrored("a", prompt_hash=1))
    bench.apply(2, watch(run="second"))
    await compare(bench, mirrored("b", prompt_hash=1, epoch=2), expected=2)
    assert [run.id for run, _ in bench.reports.pairs] == ["run-int8", "second"]


async def test_what_was_decided_before_a_run_does_not_count_in_it() -> None:
    bench = Bench(watch())
    bench.apply(5, watch(run="second"))
    await compare(bench, mirrored("old", epoch=4), mirrored("new", epoch=5))
    assert [pair.request_id for pair in bench.pairs] == ["new"]


async def test_what_nobody_watches_is_dropped() -> None:
    bench = Bench(watch())
    await compare(
        bench,
        mirrored("a", candidates=("int4",)),
        mirrored("b", model="other"),
        mirrored("c"),
    )
    assert [pair.request_id for pair in bench.pairs] == ["c"]
    assert b'penumbra_shadow_sheds_total{model="demo",reason="not_watched"} 1.0' in (
        bench.comparator.metrics.render()
    )


async def test_pairs_are_reported_in_the_order_of_admission() -> None:
    bench = Bench(watch(), deadlines={"score_seconds": 0.1})
    bench.report_gauges()
    bench.builds["int8"].first_scores = [HANGING]
    await compare(bench, *(mirrored(f"r{n}") for n in range(4)), expected=4)
    assert [pair.request_id for pair in bench.pairs] == ["r0", "r1", "r2", "r3"]
    assert [pair.missing for pair in bench.pairs] == ["score: timeout", None, None, None]


async def test_busy_engines_are_left_alone_and_the_request_is_shed_in_time() -> None:
    bench = Bench(watch())
    bench.report_gauges(int8=Gauges(0, 3, 0.0))
    request = mirrored("r", answered_at=bench.time.seconds)
    async with running(bench):
        bench.comparator.offer(request, 100)
        await asyncio.sleep(0.02)
        assert bench.builds["full"].scores == []
        bench.time.seconds += 31
        bench.report_gauges(int8=Gauges(0, 3, 0.0))
        await until(lambda: bool(bench.reports.sheds))
    assert bench.reports.sheds == [("int8", "busy")]


async def test_a_spent_budget_stops_comparing_until_it_is_refilled() -> None:
    bench = Bench(watch(), budget={"engine_seconds_per_minute": 60})
    bench.comparator.purse.charge(65)
    async with running(bench):
        bench.comparator.offer(mirrored("r", answered_at=bench.time.seconds), 100)
        await asyncio.sleep(0.02)
        assert bench.pairs == []
        bench.time.seconds += 6
        await until(lambda: bool(bench.pairs))


async def test_engines_that_tell_nothing_get_one_comparison_at_a_time() -> None:
    bench = Bench(watch(), deadlines={"score_seconds": 5})
    bench.builds["int8"].score = HANGING
    async with running(bench):
        for n in range(3):
            bench.comparator.offer(mirrored(f"r{n}"), 100)
        await until(lambda: bool(bench.builds["full"].scores))
        await asyncio.sleep(0.02)
        assert len(bench.builds["full"].scores) == 1
        assert bench.comparator.intake.items == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": b"not an answer"}, "unreadable"),
        ({"answer": answer_bytes(token_ids=())}, "unreadable"),
        ({"body": b"[]"}, "unreadable"),
        (
            {
                "body": json.dumps(
                    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}
                ).encode()
            },
            "not_text",
        ),
    ],
    ids=["no answer", "no token ids", "no body", "image"],
)
async def test_what_cannot_be_compared_is_shed_with_its_reason(
    changes: dict[str, object], reason: str
) -> None:
    bench = Bench(watch())
    await compare(bench, mirrored(**changes))
    assert bench.reports.sheds == [("int8", reason)]


async def test_an_answer_that_filled_the_context_is_scored_but_for_its_end() -> None:
    bench = Bench(watch())
    bench.comparator.context_tokens["demo"] = len(PROMPT_IDS) + len(ANSWER_IDS)
    await compare(bench, mirrored())
    assert [pair.tokens for pair in bench.pairs] == [len(ANSWER_IDS) - 1]
    full = Bench(watch())
    full.comparator.context_tokens["demo"] = len(PROMPT_IDS) + 1
    await compare(full, mirrored())
    assert full.reports.sheds == [("int8", "too_long")]


async def test_what_is_under_way_or_waits_at_the_end_is_shed() -> None:
    bench = Bench(watch())
    bench.builds["int8"].score = HANGING
    async with running(bench):
        bench.comparator.offer(mirrored("a"), 100)
        bench.comparator.offer(mirrored("b"), 100)
        await until(lambda: bool(bench.builds["int8"].scores))
    assert bench.reports.sheds == [("int8", "stopping"), ("int8", "stopping")]
    assert bench.pairs == []


async def test_a_fault_sheds_one_request_and_tells_no_content(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(watch())

    def fail(*_: object) -> None:
        raise RuntimeError("secret prompt")

    with monkeypatch.context() as patch:
        patch.setattr("router.shadow.comparator.read_case", fail)
        await compare(bench, mirrored("a"))
    assert bench.reports.sheds == [("int8", "fault")]
    assert "comparison_failed" in caplog.text
    assert all("secret" not in str(vars(record)) for record in caplog.records)
    await compare(bench, mirrored("b"), expected=2)
    assert [pair.request_id for pair in bench.pairs] == ["b"]


async def test_what_a_comparison_took_is_charged_once() -> None:
    bench = Bench(watch("int8"), watch("int4"))
    ticks = iter(range(1000))
    bench.comparator._scorer._now = lambda: 2000.0 + next(ticks)
    await compare(bench, mirrored(candidates=("int8", "int4")), expected=2)
    total = sum(pair.engine_seconds for pair in bench.pairs)
    assert total == pytest.approx(bench.comparator.purse.spent)
    assert total > 0
