"""Scorers of candidates: tested before the first comparison, and their scores left out if unfit."""

import pytest

from penumbra.monitoring.observations import ScorerTest
from penumbra.monitoring.signals.faithfulness import ScorerFault
from penumbra.router.shadow.scorer_tests import ScorerTests
from penumbra.router.upstream.fake import Script, whole
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS, mirrored
from tests.support.shadow import ComparatorSetup, compare, running, until, watch


def scorers_of(setup: ComparatorSetup) -> ScorerTests:
    return ScorerTests(setup.settings, setup.watched, setup.facts, setup.reports, setup.clocks)


async def results_of(setup: ComparatorSetup) -> list[ScorerTest]:
    await scorers_of(setup).run_due()
    return [test for _, test in setup.reports.scorer_tests]


def logits() -> Script:
    ids = (*PROMPT_IDS, *ANSWER_IDS)
    rows = [None, *({str(token): {"logprob": 12.5, "rank": 1}} for token in ids[1:])]
    return whole({"choices": [{"prompt_logprobs": rows}]})


async def test_a_sound_candidate_is_fit() -> None:
    setup = ComparatorSetup(watch())
    (test,) = await results_of(setup)
    assert (test.fault, test.gap, test.baseline_gap) == (None, 0.0, 0.0)


async def test_a_candidate_whose_weights_differ_is_fit() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].shift = -0.3
    assert [test.fault for test in await results_of(setup)] == [None]


async def test_a_prefill_apart_from_its_decoding_and_from_the_baseline_is_unfit() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].shift = setup.builds["int8"].score_shift = -0.1
    (test,) = await results_of(setup)
    assert test.fault == ScorerFault.SCORER
    assert test.gap == pytest.approx(0.095, abs=1e-3)
    assert setup.facts.scorers.unfit


async def test_a_decoding_apart_from_both_prefills_leaves_the_scorer_fit() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].decode_shift = -0.1
    (test,) = await results_of(setup)
    assert test.fault == ScorerFault.DECODE
    assert not setup.facts.scorers.unfit


async def test_where_all_three_are_apart_nothing_is_believed() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].shift = setup.builds["int8"].score_shift = -0.2
    setup.builds["int8"].decode_shift = -0.6
    setup.builds["full"].shift = -0.4
    assert [test.fault for test in await results_of(setup)] == [ScorerFault.BOTH]


async def test_a_gap_that_the_baseline_has_as_well_is_the_floor() -> None:
    setup = ComparatorSetup(watch())
    for build in setup.builds.values():
        build.decode_shift = -0.1
    (test,) = await results_of(setup)
    assert test.fault is None
    assert test.baseline_gap == pytest.approx(0.095, abs=1e-3)


async def test_an_engine_that_tells_no_log_probabilities_cannot_be_tested_and_is_compared() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].knows_decoding = False
    assert await results_of(setup) == []
    await compare(setup, mirrored())
    assert [pair.displacement for pair in setup.pairs] == [0.0]


async def test_no_request_is_compared_before_the_first_test() -> None:
    setup = ComparatorSetup(watch())
    checks = scorers_of(setup)
    async with running(setup):
        setup.comparator.offer(mirrored(), 100)
        for _ in range(50):
            setup.report_gauges()
        assert setup.pairs == []
        await checks.run_due()
        await until(lambda: bool(setup.pairs))


async def test_a_candidate_that_does_not_answer_holds_no_comparison_up() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].is_healthy = False
    assert await results_of(setup) == []
    await compare(setup, mirrored())
    assert len(setup.pairs) == 1


async def test_an_unfit_scorers_scores_are_left_out_and_harm_counts() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].shift = setup.builds["int8"].score_shift = -0.1
    await results_of(setup)
    await compare(setup, mirrored())
    (pair,) = setup.pairs
    assert (pair.displacement, pair.harm, pair.missing) == (None, 0, None)


async def test_a_scorer_that_is_fit_again_counts_again() -> None:
    setup = ComparatorSetup(watch())
    checks = scorers_of(setup)
    setup.builds["int8"].shift = setup.builds["int8"].score_shift = -0.1
    await checks.run_due()
    setup.builds["int8"].shift = setup.builds["int8"].score_shift = 0.0
    await checks.run_due()
    assert len(setup.reports.scorer_tests) == 1
    setup.time.seconds += setup.settings.self_test.retry_seconds
    await checks.run_due()
    assert [test.fault for _, test in setup.reports.scorer_tests] == ["scorer", None]
    assert not setup.facts.scorers.unfit


async def test_logits_of_the_candidate_displace_nothing_and_harm_still_counts() -> None:
    setup = ComparatorSetup(watch(generate=1.0))
    setup.builds["int8"].score = logits()
    await compare(setup, mirrored("a"), mirrored("b"), expected=2)
    assert [(pair.displacement, pair.harm, pair.missing) for pair in setup.pairs] == [
        (None, 0, None),
        (None, 0, None),
    ]
    ((run, test),) = setup.reports.scorer_tests
    assert (run.candidate, test.fault) == ("int8", ScorerFault.SCORER)
    assert test.detail == "a log-probability of 12.5, wanted at most 0"


async def test_logits_stay_unfit_whatever_later_tests_find() -> None:
    setup = ComparatorSetup(watch())
    setup.builds["int8"].score = logits()
    await compare(setup, mirrored())
    setup.builds["int8"].score = None
    assert [test.fault for test in await results_of(setup)] == [ScorerFault.SCORER]
    assert setup.facts.scorers.unfit
