from typing import Any

import pytest

from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Match, SliceRule
from penumbra.router.flags.slices import CompiledSlices, compile_match, slice_of
from tests.support.routing_tables import chat

RULES = CompiledSlices(
    (
        SliceRule(name="vip", match=Match(tenants=("acme",), headers={"x-tier": ("gold",)})),
        SliceRule(name="greek", match=Match(scripts=("greek",))),
        SliceRule(name="long", match=Match(prompt_chars_min=10)),
    )
)


def test_the_first_slice_that_matches_wins() -> None:
    assert slice_of(RULES, "acme", {"x-tier": "gold"}, chat("Γειά σου κόσμε")) == "vip"
    assert slice_of(RULES, "acme", {"x-tier": "tin"}, chat("Γειά σου κόσμε")) == "greek"
    assert slice_of(RULES, "acme", {}, chat("hello there")) == "long"


def test_a_request_that_no_rule_matches_is_of_the_slice_other() -> None:
    assert slice_of(RULES, "acme", {}, chat("hi")) == "other"


@pytest.mark.parametrize(
    ("named", "expected"),
    [("long", "long"), ("other", "other"), ("nosuch", "greek"), (None, "greek")],
)
def test_the_header_wins_if_it_names_a_slice(named: str | None, expected: str) -> None:
    assert slice_of(RULES, "globex", {}, chat("Γειά"), named) == expected


@pytest.mark.parametrize(
    ("named", "text", "expected"),
    [
        ("long", "Γειά", "greek"),  # its own slice is in quarantine: no name takes it out
        ("other", "Γειά", "greek"),
        ("greek", "hi", "greek"),  # naming a slice in quarantine puts it there
        ("long", "hi", "long"),  # its own slice is not: the name wins
    ],
)
def test_no_name_takes_a_request_out_of_quarantine(named: str, text: str, expected: str) -> None:
    assert slice_of(RULES, "globex", {}, chat(text), named, ("greek",)) == expected


def unreadable() -> Any:
    raise ValueError("no number can be that large")


@pytest.mark.parametrize("named", [None, "long", "other", "vip", "nosuch", "greek"])
def test_a_body_that_no_rule_can_read_counts_as_quarantined_while_a_slice_is(
    named: str | None,
) -> None:
    def slice_with(*quarantined: str) -> str:
        return slice_of(RULES, "globex", {}, RequestFeatures(unreadable), named, quarantined)

    assert slice_with("greek") == "greek"
    assert slice_with("vip", "long") == "vip"
    assert slice_with() == (named if named in RULES.names else "other")


def test_a_rule_that_matches_after_one_that_could_not_read_the_body_does_not_free_it() -> None:
    greek = SliceRule(name="greek", match=Match(scripts=("greek",)))
    acme = SliceRule(name="acme", match=Match(tenants=("acme",)))
    asked = CompiledSlices((greek, acme))
    assert slice_of(asked, "acme", {}, RequestFeatures(unreadable), None, ("greek",)) == "greek"
    # A rule above that needs no body decides as ever: the body was not asked for.
    not_asked = CompiledSlices((acme, greek))
    assert slice_of(not_asked, "acme", {}, RequestFeatures(unreadable), None, ("greek",)) == "acme"


def test_rules_that_ask_nothing_of_the_body_never_decode_it() -> None:
    def load() -> Any:
        raise AssertionError("decoded")

    slices = CompiledSlices((SliceRule(name="vip", match=Match(tenants=("acme",))),))
    assert slice_of(slices, "globex", {}, RequestFeatures(load)) == "other"


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (Match(), True),
        (Match(json_mode=True), True),
        (Match(json_mode=False), False),
        (Match(tools=False), True),
        (Match(prompt_chars_min=5, prompt_chars_max=5), True),
        (Match(prompt_chars_max=4), False),
        (Match(prompt_prefix=("x", "he")), True),
        (Match(prompt_prefix=("x",)), False),
        (Match(route=("chat", "completions")), True),
        (Match(route=("responses",)), False),
        (Match(modality=("text",)), True),
        (Match(modality=("image", "audio")), False),
        (Match(code=False, scripts=("latin",), slices=("greek", "s")), True),
        (Match(code=False, scripts=("latin",), slices=("greek",)), False),
    ],
)
def test_all_conditions_of_a_match_must_hold(match: Match, expected: bool) -> None:
    features = chat("hello", response_format={"type": "json_schema"})
    assert compile_match(match)(features, "acme", {}, "s") is expected
