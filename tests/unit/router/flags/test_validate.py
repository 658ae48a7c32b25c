import math

import pytest
from hypothesis import given

from penumbra.router.flags.evaluate import Context, compile_model, evaluate
from penumbra.router.flags.routing_table import Flag, Match, Pin, Rule, SliceRule
from penumbra.router.flags.rule_checks import implies, slice_problems
from penumbra.router.flags.slices import compile_match
from penumbra.router.flags.validate import FlagInvalid, validate_flag
from tests.support.routing_tables import contexts, flags, matches, model

ALL = Match()
ACME = Match(tenants=("acme",))


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        (Flag(split={"nosuch": 10}), 'split: found "nosuch", wanted one of int8, int4, int3'),
        (Flag(split={"full": 10}), "split.full: found 10.0, wanted no share"),
        (Flag(split={"int8": -1}), "split.int8: found -1.0, wanted a percentage from 0 to 100"),
        (Flag(split={"int8": math.nan}), "split.int8: found nan, wanted a percentage"),
        (Flag(split={"int8": 0.005}), "split.int8: found 0.005, wanted a multiple of 0.01"),
        (Flag(split={"int8": 60, "int4": 41}), 'split: found "101 percent in sum", wanted at'),
        (Flag(blocked=("full",)), 'blocked[0]: found "full", wanted one of int8'),
        (Flag(quarantined=("nosuch",)), 'quarantined[0]: found "nosuch", wanted one of greek'),
        (Flag(pins=(Pin(kind="key", subject="a", variant="x"),)), "pins[0].variant: found"),
        (
            Flag(pins=(Pin(kind="key", subject="a", variant="int8"),) * 2),
            "wanted one pin for each subject",
        ),
        (Flag(rules=(Rule(name="a", match=ALL),)), 'found "neither variant nor split"'),
        (
            Flag(rules=(Rule(name="a", match=ALL, variant="int8", split={}),)),
            'found "both variant and split"',
        ),
        (
            Flag(rules=(Rule(name="a", match=ALL, split={"int8": 101}),)),
            "rules[0].split.int8: found 101.0",
        ),
        (
            Flag(
                rules=(
                    Rule(name="a", match=ACME, variant="int8"),
                    Rule(name="a", match=Match(tenants=("globex",)), variant="int8"),
                )
            ),
            "a name that no earlier rule has",
        ),
        (
            Flag(
                rules=(
                    Rule(name="a", match=ALL, variant="int8"),
                    Rule(name="b", match=ACME, variant="int4"),
                )
            ),
            '"a" above matches all that it matches',
        ),
        (
            Flag(
                rules=(
                    Rule(
                        name="a",
                        match=Match(prompt_chars_min=9, prompt_chars_max=1),
                        variant="int8",
                    ),
                )
            ),
            "it never matches",
        ),
        (
            Flag(rules=(Rule(name="a", match=Match(slices=("nosuch",)), variant="int8"),)),
            "rules[0].match.slices: found",
        ),
        (
            Flag(rules=(Rule(name="a", match=Match(route=("chats",)), variant="int8"),)),
            'rules[0].match.route: found "chats", wanted one of chat, completions, responses, '
            "embeddings, tokenize, detokenize, chat_batch, messages, count_tokens, transcriptions, "
            "translations, systemone, generative_scoring, embed, pooling, classify, score, rerank",
        ),
        (
            Flag(rules=(Rule(name="a", match=Match(modality=("smell",)), variant="int8"),)),
            'rules[0].match.modality: found "smell", wanted one of text, image, audio, video, '
            "file, mixed, unknown",
        ),
        (
            Flag(rules=(Rule(name="a", match=Match(scripts=("klingon",)), variant="int8"),)),
            'found "klingon"',
        ),
        (
            Flag(rules=(Rule(name="a", match=Match(headers={"X-Team": ("a",)}), variant="int8"),)),
            "a header name in lower case",
        ),
        (
            Flag(rules=(Rule(name="a", match=Match(headers={"x-team": ()}), variant="int8"),)),
            "wanted at least one value",
        ),
    ],
)
def test_validate_flag_refuses_and_says_why(flag: Flag, expected: str) -> None:
    with pytest.raises(FlagInvalid) as caught:
        validate_flag(model(), flag)
    assert any(expected in text for text in caught.value.problems), caught.value.problems


def test_validate_flag_lists_every_problem() -> None:
    with pytest.raises(FlagInvalid) as caught:
        validate_flag(model(), Flag(split={"nosuch": 101}, blocked=("x",), quarantined=("y",)))
    assert len(caught.value.problems) == 4


@given(flags(), contexts())
def test_a_flag_that_is_accepted_can_be_evaluated(flag: Flag, request: Context) -> None:
    validate_flag(model(), flag)
    assert evaluate(compile_model("demo", model(flag)), request).error_code in (
        None,
        "unknown_variant",
        "pin_not_allowed",
        "targeting_key_missing",
    )


@given(matches, matches, contexts())
def test_what_is_implied_holds_for_every_request(
    narrow: Match, wide: Match, request: Context
) -> None:
    subject = (request.features, request.tenant, request.headers, request.slice)
    if implies(narrow, wide) and compile_match(narrow)(*subject):
        assert compile_match(wide)(*subject)


@pytest.mark.parametrize(
    ("narrow", "wide", "expected"),
    [
        (ACME, ALL, True),
        (ALL, ACME, False),
        (ACME, Match(tenants=("acme", "globex")), True),
        (Match(prompt_prefix=("hello",)), Match(prompt_prefix=("he",)), True),
        (Match(prompt_prefix=("he",)), Match(prompt_prefix=("hello",)), False),
        (Match(prompt_chars_min=5), Match(prompt_chars_min=4), True),
        (Match(prompt_chars_min=5), Match(prompt_chars_max=9), False),
        (Match(prompt_chars_max=5), Match(prompt_chars_max=9), True),
        (Match(code=True), Match(code=False), False),
        (Match(code=True, tools=True), Match(tools=True), True),
        (Match(headers={"a": ("x",)}), Match(headers={"a": ("x", "y")}), True),
        (Match(headers={"b": ("x",)}), Match(headers={"a": ("x", "y")}), False),
    ],
)
def test_implies(narrow: Match, wide: Match, expected: bool) -> None:
    assert implies(narrow, wide) is expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((SliceRule(name="other", match=ACME),), "is the rest"),
        ((SliceRule(name="a", match=Match(slices=("b",))),), "no slices in a slice"),
        (
            (SliceRule(name="a", match=ACME), SliceRule(name="a", match=Match(code=True))),
            "a name that no earlier slice has",
        ),
        (
            (SliceRule(name="a", match=ALL), SliceRule(name="b", match=ACME)),
            "above matches all that it matches",
        ),
    ],
)
def test_slice_rules_that_make_no_sense_are_named(
    rules: tuple[SliceRule, ...], expected: str
) -> None:
    assert any(expected in text for text in slice_problems(rules))
