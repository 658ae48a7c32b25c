import asyncio
import json

import pytest

from penumbra.router.shadow.admission import Gauges
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS, answer_bytes, mirrored
from tests.support.shadow import HANGING, Bench, compare, running, until, watch


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


async def test_what_one_run_does_not_take_is_shed_for_it_once() -> None:
    bench = Bench(watch("int8"), watch("int4"))
    await compare(bench, mirrored("a", prompt_hash=1, candidates=("int4",)))
    await compare(
        bench, mirrored("b", prompt_hash=1, candidates=("int8", "int4", "int2")), expected=3
    )
    assert sorted((run.candidate, pair.request_id) for run, pair in bench.reports.pairs) == [
        ("int4", "a"),
        ("int8", "b"),
    ]
    assert bench.reports.sheds == [("int4", "repeated_prompt")]
    told = bench.comparator.metrics.expose(None).body
    for reason in ("repeated_prompt", "not_watched"):
        line = f'penumbra_shadow_sheds_total{{model="demo",reason="{reason}"}} 1.0'
        assert line.encode() in told


async def test_a_candidate_that_is_named_twice_holds_nobody_up() -> None:
    bench = Bench(watch())
    await compare(bench, mirrored("a", candidates=("int8", "int8")))
    await compare(bench, mirrored("b", prompt_hash=2), expected=2)
    assert [pair.request_id for pair in bench.pairs] == ["a", "b"]


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
        bench.comparator.metrics.expose(None).body
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
    bench.facts.budget.charge(65)
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
        assert bench.comparator.queue.items == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": b"not an answer"}, "unreadable"),
        ({"answer": answer_bytes(token_ids=())}, "unreadable"),
        ({"body": b"[]"}, "unreadable"),
        ({"body": b'{"a":"\xff"}'}, "unreadable"),
        ({"body": b'{"a":' + 5_000 * b"[" + 5_000 * b"]" + b"}"}, "unreadable"),
        (
            {
                "body": json.dumps(
                    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}
                ).encode()
            },
            "not_text",
        ),
    ],
    ids=["no answer", "no token ids", "no body", "no text", "too deep", "image"],
)
async def test_what_cannot_be_compared_is_shed_with_its_reason(
    changes: dict[str, object], reason: str
) -> None:
    bench = Bench(watch())
    await compare(bench, mirrored(**changes))
    assert bench.reports.sheds == [("int8", reason)]


async def test_an_answer_that_filled_the_context_is_scored_but_for_its_end() -> None:
    bench = Bench(watch())
    bench.facts.context_tokens["demo"] = len(PROMPT_IDS) + len(ANSWER_IDS)
    await compare(bench, mirrored())
    assert [pair.tokens for pair in bench.pairs] == [len(ANSWER_IDS) - 1]
    full = Bench(watch())
    full.facts.context_tokens["demo"] = len(PROMPT_IDS) + 1
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
        patch.setattr("penumbra.router.shadow.comparator.read_case", fail)
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
    assert total == pytest.approx(bench.facts.budget.spent)
    assert total > 0
