import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.monitoring.signals.patterns import CostlyPattern, cost_of, search

atoms = st.sampled_from(["a", "b", "[ab]", "[^a]", "[]a]", ".", r"\w", r"\]", "^", "$"])
expressions = st.recursive(
    atoms,
    lambda inner: (
        st.builds("{}{}".format, inner, inner)
        | st.builds("({}|{})".format, inner, inner)
        | st.builds(
            "({}){}".format,
            inner,
            st.sampled_from(["*", "+", "?", "*?", "++", "{2}", "{1,3}", "{2,}", "{,4}", "{3,40}"]),
        )
        | st.builds("({}{})".format, st.sampled_from(["?:", "?=", "?!", "?P<n>"]), inner)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        (r"^\d{4}-\d{2}-\d{2}$", "2026-11-21", True),
        (r"^\d{4}-\d{2}-\d{2}$", "21.11.2026", False),
        (r"^\S+@\S+\.\S+$", "ada@example.com", True),
        (r"^\S+@\S+\.\S+$", "ada at example.com", False),
        (r"^[A-Za-z0-9_\-]{1,64}$", "x" * 64, True),
        (r"^(red|green|blue)$", "green", True),
        (r"^[a-z]+(-[a-z]+)*$", "a-b", True),
        (r"^[[a-z]$", "[", True),
        (r"a{,b", "a{,b", True),
        (r"x", "y" * 2000, False),
    ],
)
def test_a_tame_expression_is_searched(pattern: str, text: str, is_found: bool) -> None:
    assert search(pattern, text) == is_found


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 40 + "!"),
        ("^(a|a)*$", "a" * 40 + "!"),
        ("(.*)*x", "a" * 40),
        ("a*a*a*a*a*b", "a" * 200),
        (r"^(\w+\s?)*$", "word " * 20 + "!"),
        (r"(a)\1", "aa"),
        ("((a{900}){900}){900}", "a"),
        ("(((){1000}){1000}){1000}", "a"),
        ("(((?=a){999}){999}b?)*", "a" * 100),
        ("(?x) a # (", "a"),
        ("(?(1)a|b)", "a"),
        ("(", "a"),
        ("[", "a"),
        ("a" * 1000, "a"),
    ],
)
def test_an_expression_that_may_take_long_is_not_searched(pattern: str, text: str) -> None:
    with pytest.raises(CostlyPattern):
        search(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("abc", 1),
        ("a|b|c", 3),
        ("(a|b)(c|d)", 4),
        ("a?", 2),
        ("a*", 11),
        ("a{2,5}", 4),
        ("a*b*", 121),
        ("[*+?(|)]", 1),
        (r"\(a\*\)", 1),
    ],
)
def test_the_ways_to_match_ten_characters_are_counted(pattern: str, expected: int) -> None:
    assert cost_of(pattern, 10).ways == expected


def test_a_repeat_within_a_repeat_has_ways_without_number() -> None:
    assert cost_of("(a+)+", 100).ways > 2.0**64


@settings(deadline=2000)
@given(expressions, st.text(alphabet="ab", max_size=60))
def test_a_search_is_short_and_finds_what_python_finds(pattern: str, text: str) -> None:
    with contextlib.suppress(CostlyPattern):
        assert search(pattern, text) == (re.search(pattern, text) is not None)


@given(st.text(alphabet="ab()[]{}*+?|\\^$.,:=!<>P1", max_size=15), st.text(max_size=5))
def test_reading_an_expression_is_total(pattern: str, text: str) -> None:
    with contextlib.suppress(CostlyPattern):
        assert search(pattern, text) in (True, False)
