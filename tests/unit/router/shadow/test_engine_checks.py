import pytest

from penumbra.router.flags.routing_table import Watch
from penumbra.router.shadow.engine_checks import UNHEALTHY, EngineChecks
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.upstream.fake import whole
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS
from tests.support.shadow import HANGING, Bench, watch


def attended(*watches: Watch, **settings: object) -> tuple[Bench, EngineChecks]:
    bench = Bench(*watches, **settings)
    return bench, EngineChecks(
        bench.settings,
        bench.watched,
        bench.facts,
        bench.reports,
        bench.clocks,
        bench.comparator.metrics,
    )


async def test_gauges_are_read_from_every_build_and_grow_stale() -> None:
    bench, engine_checks = attended(watch())
    bench.builds["int8"].running = 5
    await engine_checks.read_gauges()
    found = bench.facts.fresh_gauges("demo", "int8")
    assert found is not None
    assert (found.running, found.waiting) == (5, 0)
    assert bench.facts.fresh_gauges("demo", "full") is not None
    bench.time.seconds += 4
    assert bench.facts.fresh_gauges("demo", "int8") is None


async def test_an_unhealthy_candidate_trips_once_after_so_many_bad_answers() -> None:
    bench, engine_checks = attended(watch(), health={"failures": 3})
    await engine_checks.check_health()
    bench.builds["int8"].is_healthy = False
    for _ in range(2):
        await engine_checks.check_health()
    assert bench.reports.trips == []
    for _ in range(5):
        await engine_checks.check_health()
    ((run, trip),) = bench.reports.trips
    assert (run.candidate, trip.signal) == ("int8", UNHEALTHY)


async def test_a_candidate_that_recovers_in_between_does_not_trip() -> None:
    bench, engine_checks = attended(watch(), health={"failures": 3})
    for is_healthy in (True, False, False, True, False, False):
        bench.builds["int8"].is_healthy = is_healthy
        await engine_checks.check_health()
    assert bench.reports.trips == []


async def test_a_candidate_that_still_starts_does_not_trip() -> None:
    bench, engine_checks = attended(watch(), health={"failures": 3})
    bench.builds["int8"].is_healthy = False
    for _ in range(10):
        await engine_checks.check_health()
    assert bench.reports.trips == []


async def test_fingerprints_of_both_arms_are_told_at_first_and_when_they_change() -> None:
    bench, engine_checks = attended(watch("int8"), watch("int4"))
    await engine_checks.identify()
    told = {(candidate, variant) for candidate, variant, _ in bench.reports.fingerprints}
    assert told == {("int8", "full"), ("int8", "int8"), ("int4", "full"), ("int4", "int4")}
    await engine_checks.identify()
    assert len(bench.reports.fingerprints) == 4
    bench.builds["int8"].version = "fake-2"
    await engine_checks.identify()
    assert [entry[:2] for entry in bench.reports.fingerprints[4:]] == [("int8", "int8")]


async def test_a_new_run_is_told_the_fingerprints_again() -> None:
    bench, engine_checks = attended(watch())
    await engine_checks.identify()
    bench.apply(2, watch(run="second"))
    await engine_checks.identify()
    assert len(bench.reports.fingerprints) == 4


async def test_the_shortest_context_of_the_builds_counts() -> None:
    bench, engine_checks = attended(watch())
    bench.builds["int8"].context_tokens = 512
    await engine_checks.identify()
    assert bench.facts.context_tokens == {"demo": 512}


async def test_the_self_test_is_told_to_every_run_at_start_and_every_hour() -> None:
    bench, engine_checks = attended(watch("int8"), watch("int4"))
    await engine_checks.self_test()
    tests = bench.reports.self_tests
    assert {run.candidate for run, _ in tests} == {"int8", "int4"}
    assert all(test.is_ok and test.largest_gap == 0.0 for _, test in tests)
    await engine_checks.self_test()
    assert len(tests) == 2
    bench.time.seconds += 3601
    await engine_checks.self_test()
    assert len(tests) == 4


async def test_a_new_run_is_tested_at_once() -> None:
    bench, engine_checks = attended(watch())
    await engine_checks.self_test()
    bench.apply(2, watch(run="second"))
    await engine_checks.self_test()
    assert [run.id for run, _ in bench.reports.self_tests] == ["run-int8", "second"]


async def test_the_self_test_uses_what_was_compared_last() -> None:
    bench, engine_checks = attended(watch())
    ids = [*PROMPT_IDS, *ANSWER_IDS]
    bench.facts.note_sequence("demo", ids, 4)
    bench.facts.note_sequence("demo", ids[:6], 3)
    await engine_checks.self_test()
    asked = [body["prompt"] for body in bench.builds["full"].scores]
    # The second time in another order: a cache that changes the answer is found out.
    assert asked == [ids, ids[:6], ids[:6], ids]


async def test_a_baseline_that_contradicts_itself_fails_and_is_tested_again_soon() -> None:
    bench, engine_checks = attended(watch())
    ids = [*PROMPT_IDS, *ANSWER_IDS]
    bench.facts.note_sequence("demo", ids, 4)
    rows = [None, *({str(token): {"logprob": -9.0, "rank": 2}} for token in ids[1:])]
    bench.builds["full"].first_scores = [whole({"choices": [{"prompt_logprobs": rows}]})]
    await engine_checks.self_test()
    ((_, test),) = bench.reports.self_tests
    assert not test.is_ok
    assert test.largest_gap > 0.5
    bench.time.seconds += 31
    await engine_checks.self_test()
    assert bench.reports.self_tests[-1][1].is_ok


async def test_a_self_test_that_cannot_be_done_is_none_that_passed() -> None:
    bench, engine_checks = attended(watch(), deadlines={"score_seconds": 0.05})
    bench.builds["full"].score = HANGING
    await engine_checks.self_test()
    ((_, test),) = bench.reports.self_tests
    assert not test.is_ok
    assert test.largest_gap == float("inf")
    assert "timeout" in test.detail


async def test_a_baseline_that_still_starts_is_tested_when_it_is_there() -> None:
    bench, engine_checks = attended(watch())
    bench.builds["full"].is_healthy = False
    await engine_checks.self_test()
    assert bench.reports.self_tests == []
    bench.builds["full"].is_healthy = True
    await engine_checks.self_test()
    assert [test.is_ok for _, test in bench.reports.self_tests] == [True]


@pytest.mark.parametrize(
    ("shift", "is_ok"), [(0.0, True), (0.004, True), (0.02, False)], ids=["equal", "noise", "drift"]
)
async def test_small_differences_everywhere_fail_by_their_mean(shift: float, is_ok: bool) -> None:
    bench, engine_checks = attended(watch())
    ids = [*PROMPT_IDS, *ANSWER_IDS]
    bench.facts.note_sequence("demo", ids, 4)
    build = bench.builds["full"]
    rows = [None, *({str(token): {"logprob": -2.0, "rank": 2}} for token in ids[1:])]
    lower = [None, *({str(token): {"logprob": -2.0 - shift, "rank": 2}} for token in ids[1:])]
    build.first_scores = [
        whole({"choices": [{"prompt_logprobs": given}]}) for given in (rows, lower)
    ]
    await engine_checks.self_test()
    assert bench.reports.self_tests[0][1].is_ok is is_ok


def test_the_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="limits"):
        ShadowSettings.model_validate(
            {"control_url": "http://x", "socket_path": "s", "limits": {"items": 0}}
        )
