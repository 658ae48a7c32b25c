"""The profile of a proof's pairs, and whether the traffic has left it."""

from typing import Any

import pytest

from penumbra.deployments.evidence.workload import LEAST_PAIRS, Feature, Workload
from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.spec import AdvanceRules
from tests.support.rollouts import pair

SLICES = ("json", "other")
HOUR = 3600.0


def workload_of(**gates: Any) -> Workload:
    fields: dict[str, Any] = {"slice_pairs": 20, "workload_seconds": 0.0}
    return Workload(SLICES, AdvanceRules(**(fields | gates)))


def take(
    workload: Workload,
    count: int,
    at: float = 1000.0,
    step: float = 0.0,
    **told: Any,
) -> float:
    """Count pairs that are alike; returns the time of the last one."""
    for number in range(count):
        workload.take(pair(number, **told), at + number * step)
    return at + max(0, count - 1) * step


def proven(**told: Any) -> Workload:
    """A workload of 400 alike pairs, on which the slice `other` and all slices were proven."""
    workload = workload_of()
    take(workload, 400, **told)
    workload.fix("other")
    workload.fix(AGGREGATE)
    return workload


def test_nothing_has_left_before_anything_is_proven() -> None:
    workload = workload_of()
    take(workload, 400, script="latin")
    take(workload, 400, script="han")
    assert workload.left() == {}


def test_another_script_is_told_with_its_shares() -> None:
    workload = proven(script="latin")
    take(workload, 300, script="cyrillic")
    told = "script: cyrillic 100% of the latest 300 pairs, was 0%"
    assert workload.left() == {"other": told}


def test_other_lengths_of_prompts_are_told() -> None:
    workload = proven(prompt_tokens=40)
    take(workload, 300, prompt_tokens=900)
    assert workload.left()["other"].startswith("prompt length: 256 to 1023 tokens 100%")


@pytest.mark.parametrize(("then", "now"), [(250, 260), (120, 130), (500, 520), (1000, 1999)])
def test_lengths_that_cross_a_border_are_no_others(then: int, now: int) -> None:
    workload = proven(prompt_tokens=then)
    take(workload, 600, prompt_tokens=now)
    assert workload.left() == {}


def test_another_mix_of_slices_is_told_of_all_slices_together() -> None:
    workload = proven(script="latin")
    take(workload, 300, script="latin", slice="json")
    told = "slices: json 100% of the latest 300 pairs, was 0%"
    assert workload.left() == {AGGREGATE: told}


def test_slices_and_scripts_that_are_not_known_share_one_category() -> None:
    workload = proven(script="latin")
    for number in range(300):
        workload.take(pair(number, slice=f"made-up-{number}"), 1000.0)
        workload.take(pair(number, script=f"made-up-{number}"), 1000.0)
    left = workload.left()
    assert left["other"].startswith("script: unknown 100%")
    assert left[AGGREGATE].startswith("slices: unknown 50%")


def test_answers_are_no_part_of_the_workload() -> None:
    workload = proven(prompt_tokens=40, tokens=100)
    # Once some are answered by the candidate, others are left to the baseline.
    take(workload, 600, prompt_tokens=40, tokens=1000, answered_by="int8")
    take(workload, 600, prompt_tokens=40, tokens=10)
    assert workload.left() == {}


def test_a_feature_that_was_not_told_before_has_the_profile_of_its_first_pairs() -> None:
    workload = proven(tokens=100)  # by an older comparator
    take(workload, LEAST_PAIRS, tokens=100, script="latin", prompt_tokens=50)
    pairs = {(each.slice, each.feature): each.pairs for each in workload.features()}
    assert pairs["other", Feature.SCRIPT] == LEAST_PAIRS
    assert workload.left() == {}
    take(workload, 300, tokens=100, script="han", prompt_tokens=50)
    assert workload.left()["other"].startswith("script: han")


def test_few_pairs_make_no_profile() -> None:
    workload = workload_of(slice_pairs=1)
    take(workload, 10, script="latin")
    workload.fix("other")
    take(workload, LEAST_PAIRS - 11, script="han")
    assert {each.distance for each in workload.features()} == {None}
    take(workload, 1, script="han")
    assert workload.left() == {}


def test_the_profile_after_forgetting_is_that_of_the_pairs_since() -> None:
    workload = proven(script="latin")
    workload.forget("other")
    take(workload, 300, script="han")
    workload.fix("other")
    take(workload, 300, script="latin")
    assert workload.left()["other"].startswith("script: latin")


def test_silence_after_a_burst_makes_no_shift_last() -> None:
    workload = workload_of(workload_seconds=24 * HOUR)
    at = take(workload, 400, at=HOUR, step=1.0, script="latin")
    workload.fix("other")
    take(workload, 100, at=at, step=1.0, script="han")
    take(workload, 100, at=at + 30 * HOUR, slice="json", script="latin")
    assert workload.left() == {}
    take(workload, 1, at=at + 30 * HOUR, script="han")
    assert list(workload.left()) == ["other"]


def test_a_daily_rhythm_is_no_shift_and_a_lasting_one_is() -> None:
    workload = workload_of(workload_seconds=24 * HOUR)
    at = 0.0
    for hour in range(10 * 24):
        told = {"script": "latin" if hour % 24 < 12 else "han"}
        at = take(workload, 100, at=hour * HOUR, step=HOUR / 100, **told)
        if hour == 12:  # proven in the first day, before its night
            workload.fix("other")
        assert workload.left() == {}
    # The last night, which began twelve hours ago, does not end.
    at = take(workload, 1000, at=at, step=11.5 * HOUR / 1000, script="han")
    assert workload.left() == {}
    at = take(workload, 200, at=at, step=HOUR / 100, script="han")
    assert workload.left()["other"].startswith("script: han")
