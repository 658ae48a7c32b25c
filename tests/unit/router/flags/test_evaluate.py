import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.vocabulary import Reason
from penumbra.router.flags.evaluate import (
    CLIENT_ERRORS,
    Context,
    Decision,
    compile_model,
    evaluate,
)
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Flag, Match, Pin, Rule, Snapshot, Watch
from penumbra.router.flags.slices import OTHER
from tests.support.routing_tables import VARIANTS, context, contexts, flags, model, snapshot

INT8_FOR_ALL = Flag(split={"int8": 100})
ACME_RULE = Rule(name="acme", match=Match(tenants=("acme",)), variant="int4")


def decide(flag: Flag, request: Context | None = None) -> Decision:
    return evaluate(compile_model("demo", model(flag)), request or context())


def test_no_flag_gives_the_baseline() -> None:
    assert decide(Flag()) == Decision("full", Reason.DEFAULT)


def test_a_split_of_zero_is_none() -> None:
    assert decide(Flag(split={"int8": 0})) == Decision("full", Reason.DEFAULT)


def test_a_split_is_the_reason_on_both_sides() -> None:
    flag = Flag(split={"int8": 50})
    found = {decide(flag, context(f"user-{number}")) for number in range(50)}
    assert found == {Decision("int8", Reason.SPLIT), Decision("full", Reason.SPLIT)}


def test_a_rule_beats_the_split() -> None:
    flag = Flag(split={"int8": 100}, rules=(ACME_RULE,))
    assert decide(flag) == Decision("int4", Reason.TARGETING_MATCH, rule="acme")
    assert decide(flag, context(tenant="globex")) == Decision("int8", Reason.SPLIT)


def test_the_first_rule_that_matches_decides() -> None:
    later = Rule(name="later", match=Match(tenants=("acme", "globex")), variant="int8")
    flag = Flag(rules=(ACME_RULE, later))
    assert decide(flag).rule == "acme"
    assert decide(flag, context(tenant="globex")).rule == "later"


def test_a_rule_may_split() -> None:
    rule = Rule(name="half", match=Match(), split={"int8": 50})
    found = {decide(Flag(rules=(rule,)), context(f"user-{n}")).variant for n in range(50)}
    assert found == {"int8", "full"}


def test_a_rule_with_an_empty_split_keeps_its_matches_on_the_baseline() -> None:
    flag = Flag(rules=(Rule(name="none", match=Match(), split={}),), split={"int8": 100})
    assert decide(flag) == Decision("full", Reason.TARGETING_MATCH, rule="none")


def test_pins_beat_rules_the_request_first_then_the_key_then_the_tenant() -> None:
    tenant = Pin(kind="tenant", subject="acme", variant="int3")
    key = Pin(kind="key", subject="alice", variant="int8")
    assert decide(Flag(pins=(tenant,), rules=(ACME_RULE,))) == Decision("int3", Reason.PIN)
    assert decide(Flag(pins=(tenant, key))) == Decision("int8", Reason.PIN)
    asking = context(pin="int4", may_pin=True)
    assert decide(Flag(pins=(tenant, key)), asking) == Decision("int4", Reason.PIN)


def test_a_request_that_goes_on_from_a_response_gets_the_build_that_gave_it() -> None:
    flag = Flag(
        pins=(Pin(kind="tenant", subject="acme", variant="int3"),),
        rules=(ACME_RULE,),
        split={"int8": 100},
    )
    assert decide(flag, context(home="int8")) == Decision("int8", Reason.PIN)
    assert decide(flag, context(home="full")) == Decision("full", Reason.PIN)
    # Where it is decided so anyway, the reason is the usual one.
    assert decide(INT8_FOR_ALL, context(home="int8")) == Decision("int8", Reason.SPLIT)
    # The request's own pin is nearer.
    asking = context(home="int8", pin="int4", may_pin=True)
    assert decide(flag, asking) == Decision("int4", Reason.PIN)


@pytest.mark.parametrize(
    ("changes", "fields", "expected"),
    [
        ({"killed": True}, {}, Decision("full", Reason.KILL_SWITCH)),
        ({"quarantined": ("greek",)}, {"slice": "greek"}, Decision("full", Reason.QUARANTINE)),
        ({}, {"is_lease_fresh": False}, Decision("full", Reason.LEASE_EXPIRED)),
        ({"blocked": ("int8",)}, {}, Decision("int4", Reason.SPLIT)),
        ({}, {"home": "retired"}, Decision("int4", Reason.SPLIT)),
    ],
)
def test_a_build_out_of_service_answers_no_follow_up(
    changes: dict[str, object], fields: dict[str, object], expected: Decision
) -> None:
    flag = Flag(split={"int4": 100}).model_copy(update=changes)
    assert decide(flag, context(**{"home": "int8", **fields})) == expected


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"pin": "nosuch", "may_pin": True}, "unknown_variant"),
        ({"pin": "int8", "may_pin": False}, "pin_not_allowed"),
        ({"pin": "nosuch", "may_pin": False}, "pin_not_allowed"),
    ],
)
def test_a_bad_pin_is_the_requests_fault(fields: dict[str, object], code: str) -> None:
    decision = decide(Flag(killed=True), context(**fields))
    assert decision == Decision("full", Reason.ERROR, error_code=code)
    assert code in CLIENT_ERRORS


IMAGE = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ],
        }
    ]
}


def too_large() -> object:
    raise ValueError("more than is decoded")


SOUND = {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}
TEXT_PARTS = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}


@pytest.mark.parametrize(
    ("fields", "is_released"),
    [
        ({}, True),
        ({"features": RequestFeatures.of(TEXT_PARTS)}, True),
        ({"is_comparable": False}, False),
        ({"features": RequestFeatures.of({"input": "hello"}, route="responses")}, False),
        ({"features": RequestFeatures.of(IMAGE)}, False),
        ({"features": RequestFeatures.of(SOUND)}, False),
        ({"features": RequestFeatures(too_large)}, False),
    ],
)
def test_a_rollout_gives_its_candidate_only_what_it_compares(
    fields: dict[str, object], is_released: bool
) -> None:
    watch = Watch(candidate="int8", run="int8-1", mirror=1.0)
    watched = model(INT8_FOR_ALL).model_copy(update={"watches": (watch,)})
    kept = Decision("full", Reason.UNCOMPARED)
    given = Decision("int8", Reason.SPLIT)
    found = evaluate(compile_model("demo", watched), context(**fields))
    assert found == (given if is_released else kept)
    # Without a rollout the share is the operators' own, and so are pins.
    assert decide(INT8_FOR_ALL, context(**fields)) == given
    asking = context(pin="int8", may_pin=True, **fields)
    assert evaluate(compile_model("demo", watched), asking) == Decision("int8", Reason.PIN)


RELEASED = {OTHER: ("chat", "responses", "chat+image"), "greek": ()}


@pytest.mark.parametrize(
    ("slice_name", "route", "body", "is_released"),
    [
        (OTHER, "chat", TEXT_PARTS, True),
        (OTHER, "chat", IMAGE, True),
        (OTHER, "chat", SOUND, False),
        (OTHER, "responses", {"input": "hello"}, True),
        (OTHER, "completions", {"prompt": "hello"}, False),
        ("greek", "chat", TEXT_PARTS, False),
        ("json", "chat", TEXT_PARTS, False),
    ],
)
def test_a_rollout_releases_channels_slice_by_slice(
    slice_name: str, route: str, body: dict[str, object], *, is_released: bool
) -> None:
    watch = Watch(candidate="int8", run="int8-1", mirror=1.0, released=RELEASED)
    watched = model(INT8_FOR_ALL).model_copy(update={"watches": (watch,)})
    asked = context(slice=slice_name, features=RequestFeatures.of(body, route=route))
    found = evaluate(compile_model("demo", watched), asked)
    given = Decision("int8", Reason.SPLIT) if is_released else Decision("full", Reason.UNCOMPARED)
    assert found == given


def test_a_request_goes_on_where_its_history_is_though_it_cannot_be_compared() -> None:
    watch = Watch(candidate="int8", run="int8-1", mirror=1.0, released=RELEASED)
    watched = compile_model("demo", model(INT8_FOR_ALL).model_copy(update={"watches": (watch,)}))
    features = RequestFeatures.of({"input": "and then?"}, "responses")
    follow_up = context(home="int8", is_comparable=False, features=features)
    assert evaluate(watched, follow_up) == Decision("int8", Reason.SPLIT)
    elsewhere = context(home=None, is_comparable=False, features=features)
    assert evaluate(watched, elsewhere) == Decision("full", Reason.UNCOMPARED)


def test_a_body_is_not_read_for_a_route_that_is_not_released() -> None:
    watch = Watch(candidate="int8", run="int8-1", mirror=1.0, released={OTHER: ("chat",)})
    watched = model(INT8_FOR_ALL).model_copy(update={"watches": (watch,)})
    features = RequestFeatures(too_large, route="responses")
    assert evaluate(compile_model("demo", watched), context(features=features)).variant == "full"
    assert not features.is_unreadable  # it was not asked for


def test_what_a_rollout_does_not_compare_goes_to_the_baseline_for_other_reasons_first() -> None:
    watch = Watch(candidate="int8", run="int8-1", mirror=1.0)
    for changes, fields, reason in (
        ({"killed": True}, {}, Reason.KILL_SWITCH),
        ({"blocked": ("int8",)}, {}, Reason.GUARD),
        ({"quarantined": ("other",)}, {}, Reason.QUARANTINE),
        ({}, {"is_lease_fresh": False}, Reason.LEASE_EXPIRED),
    ):
        flag = INT8_FOR_ALL.model_copy(update=changes)
        watched = model(flag).model_copy(update={"watches": (watch,)})
        asked = context(is_comparable=False, **fields)
        assert evaluate(compile_model("demo", watched), asked) == Decision("full", reason)


def test_quarantine_beats_a_pin() -> None:
    flag = Flag(quarantined=("greek",), pins=(Pin(kind="tenant", subject="acme", variant="int8"),))
    assert decide(flag, context(slice="greek")) == Decision("full", Reason.QUARANTINE)
    assert decide(flag).reason is Reason.PIN


def test_the_kill_switch_beats_quarantine_and_holds_for_all_requests() -> None:
    flag = Flag(killed=True, quarantined=("greek",))
    assert decide(flag, context(slice="greek")) == Decision("full", Reason.KILL_SWITCH)
    assert decide(flag) == Decision("full", Reason.KILL_SWITCH)


def test_the_lease_beats_the_kill_switch_where_it_takes_a_candidate_away() -> None:
    flag = Flag(killed=True, split={"int8": 100})
    stale = context(is_lease_fresh=False)
    assert decide(flag, stale) == Decision("full", Reason.LEASE_EXPIRED)
    assert decide(Flag(killed=True), stale) == Decision("full", Reason.KILL_SWITCH)
    assert decide(Flag(), stale) == Decision("full", Reason.DEFAULT)


def test_the_guard_beats_everything_where_it_takes_a_candidate_away() -> None:
    flag = Flag(killed=True, split={"int8": 100}, blocked=("int8",))
    assert decide(flag, context(is_lease_fresh=False)) == Decision("full", Reason.GUARD)
    pinned = context(pin="int4", may_pin=True)
    assert decide(Flag(split={"int8": 100}, blocked=("int8",)), pinned).variant == "int4"


def test_an_unknown_model_has_no_answer() -> None:
    decision = evaluate(snapshot(), context(model="nosuch"))
    assert decision == Decision("", Reason.ERROR, error_code="model_not_found")


def test_a_split_without_targeting_key_falls_to_the_baseline_and_says_so() -> None:
    decision = decide(INT8_FOR_ALL, context(""))
    assert decision == Decision("full", Reason.ERROR, error_code="targeting_key_missing")


@pytest.mark.parametrize(
    "flag",
    [
        Flag(split={"nosuch": 10}),
        Flag(split={"full": 10}),
        Flag(split={"int8": math.nan}),
        Flag(split={"int8": -1}),
        Flag(split={"int8": 60, "int4": 60}),
        Flag(pins=(Pin(kind="key", subject="x", variant="nosuch"),)),
        Flag(rules=(Rule(name="a", match=Match(), variant="nosuch"),)),
        Flag(rules=(Rule(name="a", match=Match()),)),
    ],
)
def test_a_flag_that_makes_no_sense_gives_the_baseline(flag: Flag) -> None:
    assert decide(flag) == Decision("full", Reason.ERROR, error_code="flag_invalid")


@pytest.mark.parametrize(
    ("flag", "needs_key"),
    [
        (Flag(), False),
        (Flag(split={"int8": 0}, rules=(ACME_RULE,)), False),
        (Flag(pins=(Pin(kind="tenant", subject="acme", variant="int8"),)), False),
        (Flag(pins=(Pin(kind="key", subject="alice", variant="int8"),)), True),
        (INT8_FOR_ALL, True),
        (Flag(rules=(Rule(name="half", match=Match(), split={"int8": 50}),)), True),
    ],
)
def test_a_key_is_needed_where_it_makes_a_difference(flag: Flag, needs_key: bool) -> None:
    compiled = compile_model("demo", model(flag))
    assert compiled.needs_key is needs_key
    if not needs_key:
        assert evaluate(compiled, context("")) == evaluate(compiled, context("alice"))


class Broken:
    def get(self, name: str, /) -> str | None:
        raise RuntimeError(name)


def test_a_failure_inside_gives_the_baseline() -> None:
    rule = Rule(name="team", match=Match(headers={"x-team": ("a",)}), variant="int8")
    decision = decide(Flag(rules=(rule,)), context(headers=Broken()))
    assert decision == Decision("full", Reason.ERROR, error_code="evaluation_failed")


@given(flags(), contexts())
def test_evaluate_is_total_and_names_a_variant_of_the_model(flag: Flag, request: Context) -> None:
    assert decide(flag, request).variant in VARIANTS


@given(flags(), contexts())
def test_evaluate_is_the_same_on_every_replica(flag: Flag, request: Context) -> None:
    table = snapshot(flag)
    elsewhere = Snapshot.model_validate_json(table.model_dump_json())
    compiled = compile_model("demo", table.models["demo"])
    decision = evaluate(compiled, request)
    assert evaluate(compiled, request) == decision
    assert evaluate(elsewhere, request) == decision


@given(flags(), contexts())
def test_a_killed_flag_never_gives_a_candidate(flag: Flag, request: Context) -> None:
    assert decide(flag.model_copy(update={"killed": True}), request).variant == "full"


@given(flags(), contexts())
def test_a_blocked_candidate_never_answers(flag: Flag, request: Context) -> None:
    assert decide(flag, request).variant not in flag.blocked


@given(flags(), contexts())
def test_no_candidate_answers_without_a_fresh_lease(flag: Flag, request: Context) -> None:
    request.is_lease_fresh = False
    assert decide(flag, request).variant == "full"


@given(flags(), contexts())
def test_reasons_follow_their_precedence(flag: Flag, request: Context) -> None:
    # Taking away the reason for a decision leaves a reason of lower precedence.
    order = list(Reason)
    reason = decide(flag, request).reason
    without = {
        Reason.GUARD: {"blocked": ()},
        Reason.KILL_SWITCH: {"killed": False},
        Reason.QUARANTINE: {"quarantined": (), "quarantined_for": {}},
    }.get(reason)
    if without is not None:
        less = decide(flag.model_copy(update=without), request)
        assert order.index(less.reason) > order.index(reason)


@given(flags(), st.text(min_size=1))
def test_a_split_is_sticky_on_the_targeting_key_alone(flag: Flag, key: str) -> None:
    flag = Flag(split=flag.split)
    other = context(key, tenant="initech", request_id="r-2", slice="json", headers={"x-team": "a"})
    assert decide(flag, context(key)) == decide(flag, other)
