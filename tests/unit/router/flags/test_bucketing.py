import math
import zlib

import cbor2
import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.flags.bucketing import (
    TOTAL,
    Line,
    basis_points,
    cbor_text,
    intervals,
    places,
    position,
    salt,
)
from tests.support.routing_tables import VARIANTS, splits


@given(st.text())
def test_cbor_text_is_what_a_cbor_library_writes(text: str) -> None:
    assert cbor_text(text) == cbor2.dumps(text, canonical=True)


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65_535, 65_536])
def test_cbor_text_uses_the_shortest_length(size: int) -> None:
    assert cbor_text("x" * size) == cbor2.dumps("x" * size, canonical=True)


@given(st.text(), st.text())
def test_position_is_the_scaled_murmur_hash(flag_key: str, key: str) -> None:
    digest = mmh3.hash(cbor2.dumps([flag_key, key], canonical=True), signed=False)
    assert position(salt(flag_key), key) == digest * TOTAL // 2**32


def test_position_takes_text_that_is_not_valid_unicode() -> None:
    assert 0 <= position(salt("demo"), "\ud800") < TOTAL


@pytest.mark.parametrize("percent", [-0.01, 100.01, math.nan, math.inf, 0.001, 33.333])
def test_basis_points_refuses_what_is_no_share(percent: float) -> None:
    with pytest.raises(ValueError, match=r"percentage|multiple"):
        basis_points(percent)


@given(st.integers(0, TOTAL))
def test_basis_points_takes_every_hundredth(points: int) -> None:
    assert basis_points(points / 100) == points


@given(splits())
def test_intervals_fill_the_line(split: dict[str, float]) -> None:
    laid = intervals(split, "full", VARIANTS)
    assert sum(points for _, points in laid) == TOTAL
    for name, percent in split.items():
        assert sum(points for each, points in laid if each == name) == round(percent * 100)


@pytest.mark.parametrize(
    ("split", "laid"),
    [
        ({"int8": 10}, [("int8", 1000), ("full", 9000)]),
        ({"int4": 20}, [("full", 8000), ("int4", 2000)]),
        (
            {"int8": 10, "int4": 20, "int3": 5},
            [("int8", 1000), ("full", 4000), ("int3", 500), ("full", 2500), ("int4", 2000)],
        ),
        # Where shares meet, the higher place goes on behind the lower ones.
        ({"int8": 60, "int3": 30}, [("int8", 6000), ("int3", 3000), ("full", 1000)]),
        (
            {"int4": 40, "int3": 30},
            [("int3", 2000), ("full", 3000), ("int3", 1000), ("int4", 4000)],
        ),
        ({"int8": 50, "int4": 50}, [("int8", 5000), ("int4", 5000)]),
    ],
)
def test_a_place_says_where_a_share_lies(
    split: dict[str, float], laid: list[tuple[str, int]]
) -> None:
    assert intervals(split, "full", VARIANTS) == laid


def test_two_candidates_of_one_place_are_refused() -> None:
    with pytest.raises(ValueError, match="one place"):
        intervals({}, "full", VARIANTS, {"int8": 1, "int4": 1})


def test_a_known_place_is_kept_and_a_new_candidate_gets_the_lowest_free_one() -> None:
    assert places(("a", "b", "c"), {}) == {"a": 0, "b": 1, "c": 2}
    assert places(("b", "c"), {"a": 0, "b": 1, "c": 2}) == {"b": 1, "c": 2}
    assert places(("new", "b", "c"), {"b": 1, "c": 2}) == {"new": 0, "b": 1, "c": 2}
    assert places(("c", "x", "y"), {"c": 7}) == {"c": 7, "x": 0, "y": 1}


changes = st.lists(
    st.lists(st.sampled_from("abcde"), unique=True, max_size=5).map(tuple), max_size=6
)


@given(changes, st.sampled_from("abcde"), st.integers(1, TOTAL), st.integers(0, TOTAL - 1))
def test_variants_that_come_and_go_without_a_share_move_no_key(
    lists: list[tuple[str, ...]], live: str, share: int, point: int
) -> None:
    known: dict[str, int] = {}
    found = set()
    for names in lists:
        # Also in another order, and whatever stands before and behind it.
        variants = ("full", *dict.fromkeys((*names, live)))
        known = places(variants[1:], known)
        found.add(Line(intervals({live: share / 100}, "full", variants, known)).variant_at(point))
    assert len(found) <= 1


@given(splits(), st.sampled_from(VARIANTS[1:]), st.integers(0, TOTAL - 1))
def test_taking_a_candidate_out_moves_no_key_of_one_that_it_never_met(
    split: dict[str, float], retired: str, point: int
) -> None:
    known = places(VARIANTS[1:], {})
    before = Line(intervals(split, "full", VARIANTS, known)).variant_at(point)
    rest = {name: share for name, share in split.items() if name != retired}
    after_variants = tuple(name for name in VARIANTS if name != retired)
    after = Line(intervals(rest, "full", after_variants, known)).variant_at(point)
    # Places 0 and 1 never meet another one; place 2 meets one that reaches the middle of the line.
    if before not in ("full", retired, "int3") or max(split.values(), default=0) <= 25:
        assert after == before or before == retired


@pytest.mark.parametrize("split", [{"full": 1}, {"nosuch": 1}, {"int8": 60, "int4": 41}])
def test_intervals_refuse_shares_that_cannot_be(split: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        intervals(split, "full", VARIANTS)


def test_line_refuses_a_point_beyond_it() -> None:
    with pytest.raises(ValueError, match="outside"):
        Line([("full", TOTAL)]).variant_at(TOTAL)


@given(splits(), st.sampled_from(VARIANTS[1:]), st.integers(0, TOTAL), st.integers(0, TOTAL - 1))
def test_raising_a_share_moves_only_keys_of_a_higher_place(
    split: dict[str, float], raised: str, more: int, point: int
) -> None:
    room = TOTAL - sum(round(percent * 100) for percent in split.values())
    after = split | {raised: (round(split.get(raised, 0) * 100) + min(more, room)) / 100}
    old = Line(intervals(split, "full", VARIANTS)).variant_at(point)
    new = Line(intervals(after, "full", VARIANTS)).variant_at(point)
    if old != "full" and VARIANTS.index(old) <= max(2, VARIANTS.index(raised)):
        assert new == old


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, TOTAL - 1))
def test_raising_either_of_two_shares_moves_no_key_out_of_a_candidate(
    first: int, second: int, more: int, point: int
) -> None:
    variants = ("full", "int8", "int4")
    more = min(more, TOTAL - first - second)
    old = Line(intervals({"int8": first / 100, "int4": second / 100}, "full", variants))
    for raised in (
        {"int8": (first + more) / 100, "int4": second / 100},
        {"int8": first / 100, "int4": (second + more) / 100},
    ):
        new = Line(intervals(raised, "full", variants))
        if old.variant_at(point) != "full":
            assert new.variant_at(point) == old.variant_at(point)


@pytest.mark.parametrize("share", [1, 500, 3000, 5000, 9999])
def test_shares_come_out_within_binomial_bounds(share: int) -> None:
    # Keys as users have them: consecutive numbers. Five standard deviations, fixed keys.
    count = 20_000
    line = Line(intervals({"int8": share / 100}, "full", ("full", "int8")))
    prefix = salt("demo")
    hits = sum(
        line.variant_at(position(prefix, f"user-{number}")) == "int8" for number in range(count)
    )
    expected = count * share / TOTAL
    assert abs(hits - expected) <= 5 * math.sqrt(expected * (1 - share / TOTAL)) + 1


def test_two_flags_split_independently() -> None:
    one, other = salt("demo"), salt("chat")
    keys = [f"{zlib.crc32(str(number).encode())}" for number in range(4000)]
    both = sum(position(one, key) < 5000 and position(other, key) < 5000 for key in keys)
    assert abs(both - 1000) < 5 * math.sqrt(4000 * 0.25 * 0.75)
