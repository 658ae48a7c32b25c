import asyncio
import json

import pytest

from penumbra.router.shadow.admission import Gauges
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS, answer_bytes, mirrored
from tests.support.shadow import HANGING, ComparatorSetup, compare, running, until, watch


async def test_a_prompt_has_one_bet_and_a_session_one_turn_a_run() -> None:
    setup = ComparatorSetup(watch("int8"), watch("int4"))
    await compare(
        setup,
        mirrored("a", prompt_hash=1, session=5),
        mirrored("b", prompt_hash=1),
        mirrored("c", prompt_hash=2, session=5),
        mirrored("d", prompt_hash=1, candidates=("int4",)),
        mirrored("e", prompt_hash=3),
        expected=5,
    )
    assert sorted((run.candidate, pair.request_id) for run, pair in setup.reports.pairs) == [
        ("int4", "d"),
        ("int8", "a"),
        ("int8", "e"),
    ]
    assert setup.reports.sheds == [("int8", "repeated_prompt"), ("int8", "repeated_session")]


async def test_the_turns_of_a_conversation_have_one_bet_together() -> None:
    setup = ComparatorSetup(watch("int8"), watch("int4", cluster="prompt"))
    turns = [mirrored(f"r{n}", root=9, candidates=("int8", "int4")) for n in range(20)]
    await compare(setup, *turns, expected=40)
    by_candidate = [run.candidate for run, _ in setup.reports.pairs]
    assert (by_candidate.count("int8"), by_candidate.count("int4")) == (1, 20)
    assert {reason for _, reason in setup.reports.sheds} <= {"repeated_prompt", "other_turn"}
    assert {pair.cluster for run, pair in setup.reports.pairs if run.candidate == "int8"} == {9}


async def test_what_one_run_does_not_take_is_shed_for_it_once() -> None:
    setup = ComparatorSetup(watch("int8"), watch("int4"))
    await compare(setup, mirrored("a", prompt_hash=1, candidates=("int4",)))
    await compare(
        setup, mirrored("b", prompt_hash=1, candidates=("int8", "int4", "int2")), expected=3
    )
    assert sorted((run.candidate, pair.request_id) for run, pair in setup.reports.pairs) == [
        ("int4", "a"),
        ("int8", "b"),
    ]
    assert setup.reports.sheds == [("int4", "repeated_prompt")]
    told = setup.comparator.metrics.expose(None).body
    for reason in ("repeated_prompt", "not_watched"):
        line = f'penumbra_shadow_sheds_total{{model="demo",reason="{reason}"}} 1.0'
        assert line.encode() in told


async def test_a_candidate_that_is_named_twice_delays_no_pair() -> None:
    setup = ComparatorSetup(watch())
    await compare(setup, mirrored("a", candidates=("int8", "int8")))
    await compare(setup, mirrored("b", prompt_hash=2), expected=2)
    assert [pair.request_id for pair in setup.pairs] == ["a", "b"]


async def test_a_new_run_begins_with_fresh_bets() -> None:
    setup = ComparatorSetup(watch())
    await compare(setup, mirrored("a", prompt_hash=1))
    setup.apply(2, watch(run="second"))
    await compare(setup, mirrored("b", prompt_hash=1, epoch=2), expected=2)
    assert [run.id for run, _ in setup.reports.pairs] == ["run-int8", "second"]


async def test_what_was_decided_before_a_run_does_not_count_in_it() -> None:
    setup = ComparatorSetup(watch())
    setup.apply(5, watch(run="second"))
    await compare(setup, mirrored("old", epoch=4), mirrored("new", epoch=5))
    assert [pair.request_id for pair in setup.pairs] == ["new"]


async def test_a_request_of_an_unwatched_candidate_is_dropped() -> None:
    setup = ComparatorSetup(watch())
    await compare(
        setup,
        mirrored("a", candidates=("int4",)),
        mirrored("b", model="other"),
        mirrored("c"),
    )
    assert [pair.request_id for pair in setup.pairs] == ["c"]
    assert b'penumbra_shadow_sheds_total{model="demo",reason="not_watched"} 1.0' in (
        setup.comparator.metrics.expose(None).body
    )


async def test_pairs_are_reported_in_the_order_of_admission() -> None:
    setup = ComparatorSetup(watch(), deadlines={"score_seconds": 0.1})
    setup.report_gauges()
    setup.builds["int8"].first_scores = [HANGING]
    await compare(setup, *(mirrored(f"r{n}") for n in range(4)), expected=4)
    assert [pair.request_id for pair in setup.pairs] == ["r0", "r1", "r2", "r3"]
    assert [pair.missing for pair in setup.pairs] == ["score: timeout", None, None, None]


async def test_busy_engines_are_left_alone_and_the_request_is_shed_in_time() -> None:
    setup = ComparatorSetup(watch())
    setup.report_gauges(int8=Gauges(0, 3, 0.0))
    request = mirrored("r", answered_at=setup.time.seconds)
    async with running(setup):
        setup.comparator.offer(request, 100)
        await asyncio.sleep(0.02)
        assert setup.builds["full"].scores == []
        setup.time.seconds += 31
        setup.report_gauges(int8=Gauges(0, 3, 0.0))
        await until(lambda: bool(setup.reports.sheds))
    assert setup.reports.sheds == [("int8", "busy")]


async def test_a_spent_budget_stops_comparing_until_it_is_refilled() -> None:
    setup = ComparatorSetup(watch(), budget={"engine_seconds_per_minute": 60})
    setup.facts.budget.charge(65)
    async with running(setup):
        setup.comparator.offer(mirrored("r", answered_at=setup.time.seconds), 100)
        await asyncio.sleep(0.02)
        assert setup.pairs == []
        setup.time.seconds += 6
        await until(lambda: bool(setup.pairs))


async def test_engines_that_tell_nothing_get_one_comparison_at_a_time() -> None:
    setup = ComparatorSetup(watch(), deadlines={"score_seconds": 5})
    setup.builds["int8"].score = HANGING
    async with running(setup):
        for n in range(3):
            setup.comparator.offer(mirrored(f"r{n}"), 100)
        await until(lambda: bool(setup.builds["full"].scores))
        await asyncio.sleep(0.02)
        assert len(setup.builds["full"].scores) == 1
        assert setup.comparator.queue.items == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": b"not an answer"}, "unreadable"),
        ({"answer": answer_bytes(token_ids=())}, "unreadable"),
        ({"answer": answer_bytes(completion_tokens=len(ANSWER_IDS) + 1)}, "ids_missing"),
        ({"body": b"[]"}, "unreadable"),
        ({"body": b'{"a":"\xff"}'}, "unreadable"),
        ({"body": b'{"a":' + 5_000 * b"[" + 5_000 * b"]" + b"}"}, "unreadable"),
        (
            {
                "body": json.dumps(
                    {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}
                ).encode()
            },
            "not_text",
        ),
    ],
    ids=["no answer", "no token ids", "too few ids", "no body", "no text", "too deep", "image"],
)
async def test_what_cannot_be_compared_is_shed_with_its_reason(
    changes: dict[str, object], reason: str
) -> None:
    setup = ComparatorSetup(watch())
    await compare(setup, mirrored(**changes))
    assert setup.reports.sheds == [("int8", reason)]


async def test_an_answer_that_filled_the_context_is_scored_but_for_its_end() -> None:
    setup = ComparatorSetup(watch())
    setup.facts.context_tokens["demo"] = len(PROMPT_IDS) + len(ANSWER_IDS)
    await compare(setup, mirrored())
    assert [pair.tokens for pair in setup.pairs] == [len(ANSWER_IDS) - 1]
    full = ComparatorSetup(watch())
    full.facts.context_tokens["demo"] = len(PROMPT_IDS) + 1
    await compare(full, mirrored())
    assert full.reports.sheds == [("int8", "too_long")]


async def test_what_is_under_way_or_waits_at_the_end_is_shed() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].score = HANGING
    async with running(setup):
        setup.comparator.offer(mirrored("a"), 100)
        setup.comparator.offer(mirrored("b"), 100)
        await until(lambda: bool(setup.builds["int8"].scores))
    assert setup.reports.sheds == [("int8", "stopping"), ("int8", "stopping")]
    assert setup.pairs == []


async def test_a_fault_sheds_one_request_and_tells_no_content(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = ComparatorSetup(watch())

    def fail(*_: object) -> None:
        raise RuntimeError("secret prompt")

    with monkeypatch.context() as patch:
        patch.setattr("penumbra.router.shadow.comparator.read_case", fail)
        await compare(setup, mirrored("a"))
    assert setup.reports.sheds == [("int8", "fault")]
    assert "comparison_failed" in caplog.text
    assert all("secret" not in str(vars(record)) for record in caplog.records)
    await compare(setup, mirrored("b"), expected=2)
    assert [pair.request_id for pair in setup.pairs] == ["b"]


async def test_what_a_comparison_took_is_charged_once() -> None:
    setup = ComparatorSetup(watch("int8"), watch("int4"))
    ticks = iter(range(1000))
    setup.comparator._scorer._now = lambda: 2000.0 + next(ticks)
    await compare(setup, mirrored(candidates=("int8", "int4")), expected=2)
    total = sum(pair.engine_seconds for pair in setup.pairs)
    assert total == pytest.approx(setup.facts.budget.spent)
    assert total > 0
