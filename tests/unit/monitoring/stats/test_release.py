import itertools
from math import fsum, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.stats.release import boundary_of, newly_proven, share_of_run

PROOFS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.0, 1e6), min_size=1)


def test_slice_alone_needs_one_over_alpha() -> None:
    assert newly_proven({"a": 20.0}, 0.05) == ("a",)
    assert newly_proven({"a": 19.9}, 0.05) == ()


def test_first_of_silent_slices_needs_what_the_others_lack() -> None:
    proofs = {"a": 77.1, "b": 1.0, "c": 1.0, "d": 1.0}
    assert boundary_of("a", proofs, 0.05) == 20.0 + 3 * 19.0
    assert newly_proven(proofs, 0.05) == ("a",)
    assert newly_proven({**proofs, "a": 76.9}, 0.05) == ()


def test_slices_that_are_proven_together_need_no_more_than_one_alone() -> None:
    assert newly_proven(dict.fromkeys("abcd", 20.0), 0.05) == tuple("abcd")


def test_refuted_slice_holds_the_others_to_twice_the_boundary() -> None:
    assert newly_proven({"good": 39.9, "bad": 0.0}, 0.05) == ()
    assert newly_proven({"good": 40.1, "bad": 0.0}, 0.05) == ("good",)


@given(PROOFS, st.floats(0.01, 0.5))
def test_slice_is_named_only_if_every_set_with_it_has_a_mean_of_one_over_alpha(
    proofs: dict[str, float], alpha: float
) -> None:
    for name in newly_proven(proofs, alpha):
        others = [proof for other, proof in proofs.items() if other != name]
        for size in range(len(others) + 1):
            for some in itertools.combinations(others, size):
                assert (proofs[name] + fsum(some)) / (size + 1) >= (1.0 - 1e-9) / alpha


@pytest.mark.parametrize("bad", [("a", "b", "c"), ("a", "b"), ("c",)])
def test_any_false_release_has_at_most_probability_alpha(bad: tuple[str, ...]) -> None:
    # Proofs double or end, each with one half, where a slice is beyond tolerance: the boldest game.
    alpha, rounds = 0.3, 4
    false = 0.0
    games = list(itertools.product((False, True), repeat=rounds))
    for wins in itertools.product(games, repeat=len(bad)):
        family, named = dict.fromkeys("abc", 1.0), set[str]()
        for number in range(rounds):
            for name in "abc":
                is_won = wins[bad.index(name)][number] if name in bad else True
                if name in family:
                    family[name] *= 2.0 * is_won
            fresh = newly_proven(family, alpha)
            named.update(fresh)
            family = {name: proof for name, proof in family.items() if name not in fresh}
        false += 0.5 ** (rounds * len(bad)) * bool(named & set(bad))
    assert 0.0 < false <= alpha


def test_shares_of_all_runs_are_one() -> None:
    shares = [share_of_run(earlier) for earlier in range(100_000)]
    assert shares[:3] == pytest.approx([0.75, 0.125, 0.25 / 6])
    assert 0.9999 < fsum(shares) <= 1.0
    assert prod(shares[:10]) > 0.0
