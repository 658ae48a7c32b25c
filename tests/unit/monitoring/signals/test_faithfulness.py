import math

import pytest

from penumbra.monitoring.signals.faithfulness import (
    ScorerFault,
    arbitrate,
    find_contradiction,
    greedy_misses,
)


def test_scores_of_a_sound_engine_hold_no_contradiction() -> None:
    likely, rare = math.log(0.7), math.log(0.2)
    assert (
        find_contradiction([likely, rare, 0.0], [1, 2, 3], [1, 5, 3], [likely, likely, 0.0]) is None
    )


def test_logits_in_place_of_log_probabilities_are_a_contradiction() -> None:
    found = find_contradiction([14.2, 9.0], [1, 2], [1, 2])
    assert found == "a log-probability of 14.2, wanted at most 0"


def test_probabilities_over_one_in_sum_are_a_contradiction() -> None:
    value = math.log(0.6)
    assert find_contradiction([value], [1], [2], [value]) == "probabilities of 1.2 in sum"


def test_a_token_that_is_likelier_than_the_likeliest_is_a_contradiction() -> None:
    found = find_contradiction([-0.1], [1], [2], [-3.0])
    assert found == "a token that is likelier than the likeliest"


@pytest.mark.parametrize("value", [math.nan, -math.inf, 1e-7])
def test_rounding_and_numbers_that_are_none_are_no_contradiction(value: float) -> None:
    assert find_contradiction([value], [1], [1], [0.0]) is None


def test_greedy_tokens_that_are_the_likeliest_are_no_misses() -> None:
    assert greedy_misses([-0.1, -0.2], [1, 2], [1, 2], [-0.1, -0.2], 0.0) == 0


def test_a_greedy_token_misses_only_beyond_the_engines_noise() -> None:
    scores = ([-0.9, -3.0], [1, 2], [5, 6], [-0.8, -0.1])
    assert greedy_misses(*scores, floor=0.2) == 1
    assert greedy_misses(*scores, floor=0.0) == 2
    assert greedy_misses([-0.9, -3.0], [1, 2], [5, 6], [], floor=0.2) == 2


def test_decoding_apart_from_both_prefills_is_at_fault() -> None:
    assert arbitrate(decode_apart=0.06, prefill_apart=0.01) is ScorerFault.DECODE


def test_a_prefill_apart_from_its_decoding_and_from_the_baseline_is_at_fault() -> None:
    assert arbitrate(decode_apart=0.01, prefill_apart=0.06) is ScorerFault.SCORER


def test_where_all_are_apart_nothing_can_be_believed() -> None:
    assert arbitrate(decode_apart=0.06, prefill_apart=0.055) is ScorerFault.BOTH
