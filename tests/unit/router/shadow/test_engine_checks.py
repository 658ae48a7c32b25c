import pytest

from penumbra.router.flags.routing_table import Watch
from penumbra.router.shadow.engine_checks import UNHEALTHY, EngineChecks
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.upstream.fake import whole
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS
from tests.support.shadow import HANGING, ComparatorSetup, watch


def with_checks(*watches: Watch, **settings: object) -> tuple[ComparatorSetup, EngineChecks]:
    setup = ComparatorSetup(*watches, **settings)
    return setup, EngineChecks(
        setup.settings,
        setup.watched,
        setup.facts,
        setup.reports,
        setup.clocks,
        setup.comparator.metrics,
    )


async def test_gauges_are_read_from_every_build_and_grow_stale() -> None:
    setup, engine_checks = with_checks(watch())
    setup.builds["int8"].running = 5
    await engine_checks.read_gauges()
    found = setup.facts.fresh_gauges("demo", "int8")
    assert found is not None
    assert (found.running, found.waiting) == (5, 0)
    assert setup.facts.fresh_gauges("demo", "full") is not None
    setup.time.seconds += 4
    assert setup.facts.fresh_gauges("demo", "int8") is None


async def test_an_unhealthy_candidate_trips_once_after_so_many_bad_answers() -> None:
    setup, engine_checks = with_checks(watch(), health={"failures": 3})
    await engine_checks.check_health()
    setup.builds["int8"].is_healthy = False
    for _ in range(2):
        await engine_checks.check_health()
    assert setup.reports.trips == []
    for _ in range(5):
        await engine_checks.check_health()
    ((run, trip),) = setup.reports.trips
    assert (run.candidate, trip.signal) == ("int8", UNHEALTHY)


async def test_a_candidate_that_recovers_in_between_does_not_trip() -> None:
    setup, engine_checks = with_checks(watch(), health={"failures": 3})
    for is_healthy in (True, False, False, True, False, False):
        setup.builds["int8"].is_healthy = is_healthy
        await engine_checks.check_health()
    assert setup.reports.trips == []


async def test_an_outage_of_both_builds_does_not_trip() -> None:
    setup, engine_checks = with_checks(watch(), health={"failures": 3})
    await engine_checks.check_health()
    setup.builds["full"].is_healthy = setup.builds["int8"].is_healthy = False
    for _ in range(10):
        await engine_checks.check_health()
    assert setup.reports.trips == []
    setup.builds["full"].is_healthy = True
    for _ in range(3):
        await engine_checks.check_health()
    assert [trip.signal for _, trip in setup.reports.trips] == [UNHEALTHY]


async def test_a_candidate_that_still_starts_does_not_trip() -> None:
    setup, engine_checks = with_checks(watch(), health={"failures": 3})
    setup.builds["int8"].is_healthy = False
    for _ in range(10):
        await engine_checks.check_health()
    assert setup.reports.trips == []


async def test_fingerprints_of_both_arms_are_told_at_first_and_when_they_change() -> None:
    setup, engine_checks = with_checks(watch("int8"), watch("int4"))
    await engine_checks.identify()
    told = {(candidate, variant) for candidate, variant, _ in setup.reports.fingerprints}
    assert told == {("int8", "full"), ("int8", "int8"), ("int4", "full"), ("int4", "int4")}
    await engine_checks.identify()
    assert len(setup.reports.fingerprints) == 4
    setup.builds["int8"].version = "fake-2"
    await engine_checks.identify()
    assert [entry[:2] for entry in setup.reports.fingerprints[4:]] == [("int8", "int8")]


async def test_a_new_run_is_told_the_fingerprints_again() -> None:
    setup, engine_checks = with_checks(watch())
    await engine_checks.identify()
    setup.apply(2, watch(run="second"))
    await engine_checks.identify()
    assert len(setup.reports.fingerprints) == 4


async def test_the_shortest_context_of_the_builds_counts() -> None:
    setup, engine_checks = with_checks(watch())
    setup.builds["int8"].context_tokens = 512
    await engine_checks.identify()
    assert setup.facts.context_tokens == {"demo": 512}


async def test_the_self_test_is_told_to_every_run_at_start_and_every_hour() -> None:
    setup, engine_checks = with_checks(watch("int8"), watch("int4"))
    await engine_checks.self_test()
    tests = setup.reports.self_tests
    assert {run.candidate for run, _ in tests} == {"int8", "int4"}
    assert all(test.is_ok and test.largest_gap == 0.0 for _, test in tests)
    await engine_checks.self_test()
    assert len(tests) == 2
    setup.time.seconds += 3601
    await engine_checks.self_test()
    assert len(tests) == 4


async def test_a_new_run_is_tested_at_once() -> None:
    setup, engine_checks = with_checks(watch())
    await engine_checks.self_test()
    setup.apply(2, watch(run="second"))
    await engine_checks.self_test()
    assert [run.id for run, _ in setup.reports.self_tests] == ["run-int8", "second"]


async def test_the_self_test_uses_what_was_compared_last() -> None:
    setup, engine_checks = with_checks(watch())
    ids = [*PROMPT_IDS, *ANSWER_IDS]
    setup.facts.note_sequence("demo", ids, 4)
    setup.facts.note_sequence("demo", ids[:6], 3)
    await engine_checks.self_test()
    asked = [body["prompt"] for body in setup.builds["full"].scores]
    # The second time in another order: a cache that changes the answer is found out.
    assert asked == [ids, ids[:6], ids[:6], ids]


async def test_a_baseline_that_contradicts_itself_fails_and_is_tested_again_soon() -> None:
    setup, engine_checks = with_checks(watch())
    ids = [*PROMPT_IDS, *ANSWER_IDS]
    setup.facts.note_sequence("demo", ids, 4)
    rows = [None, *({str(token): {"logprob": -9.0, "rank": 2}} for token in ids[1:])]
    setup.builds["full"].first_scores = [whole({"choices": [{"prompt_logprobs": rows}]})]
    await engine_checks.self_test()
    ((_, test),) = setup.reports.self_tests
    assert not test.is_ok
    assert test.largest_gap > 0.5
    setup.time.seconds += 31
    await engine_checks.self_test()
    assert setup.reports.self_tests[-1][1].is_ok


async def test_a_self_test_that_cannot_be_done_is_none_that_passed() -> None:
    setup, engine_checks = with_checks(watch(), deadlines={"score_seconds": 0.05})
    setup.builds["full"].score = HANGING
    await engine_checks.self_test()
    ((_, test),) = setup.reports.self_tests
    assert not test.is_ok
    assert test.largest_gap == float("inf")
    assert "timeout" in test.detail


async def test_a_baseline_that_still_starts_is_tested_when_it_is_there() -> None:
    setup, engine_checks = with_checks(watch())
    setup.builds["full"].is_healthy = False
    await engine_checks.self_test()
    assert setup.reports.self_tests == []
    setup.builds["full"].is_healthy = True
    await engine_checks.self_test()
    assert [test.is_ok for _, test in setup.reports.self_tests] == [True]


@pytest.mark.parametrize(
    ("shift", "is_ok"), [(0.0, True), (0.004, True), (0.02, False)], ids=["equal", "noise", "drift"]
)
async def test_small_differences_everywhere_fail_by_their_mean(shift: float, is_ok: bool) -> None:
    setup, engine_checks = with_checks(watch())
    ids = [*PROMPT_IDS, *ANSWER_IDS]
    setup.facts.note_sequence("demo", ids, 4)
    build = setup.builds["full"]
    rows = [None, *({str(token): {"logprob": -2.0, "rank": 2}} for token in ids[1:])]
    lower = [None, *({str(token): {"logprob": -2.0 - shift, "rank": 2}} for token in ids[1:])]
    build.first_scores = [
        whole({"choices": [{"prompt_logprobs": given}]}) for given in (rows, lower)
    ]
    await engine_checks.self_test()
    assert setup.reports.self_tests[0][1].is_ok is is_ok


def test_the_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="limits"):
        ShadowSettings.model_validate(
            {"control_url": "http://x", "socket_path": "s", "limits": {"items": 0}}
        )
