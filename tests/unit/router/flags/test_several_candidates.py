"""Several candidates of one model, each with slices in which it may not answer."""

import json

import pytest
from hypothesis import given

from penumbra.monitoring.vocabulary import Reason
from penumbra.router.dispatch.gates import TrafficGates
from penumbra.router.dispatch.plan import live_candidates
from penumbra.router.flags.evaluate import Context, Decision, compile_model, evaluate
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Flag, Pin
from penumbra.router.flags.validate import flag_problems
from penumbra.router.link.messages import from_control, push_of
from tests.support.routing_tables import context, contexts, flags, model, snapshot

SHARES = {"int8": 40.0, "int4": 60.0}


def decide(flag: Flag, request: Context) -> Decision:
    return evaluate(compile_model("demo", model(flag)), request)


@given(flags(), contexts())
def test_a_quarantine_of_one_candidate_moves_its_requests_to_the_baseline_and_no_others(
    flag: Flag, request: Context
) -> None:
    free = decide(flag.model_copy(update={"quarantined_for": {}}), request)
    found = decide(flag, request)
    if free.variant != "full" and request.slice in flag.quarantined_for.get(free.variant, ()):
        assert found == Decision("full", Reason.QUARANTINE)
    else:
        assert found == free


@pytest.mark.parametrize("closed", ["int8", "int4"])
def test_a_place_in_the_split_gives_nothing_to_the_other_candidate(closed: str) -> None:
    open_flag = Flag(split=SHARES)
    flag = Flag(split=SHARES, quarantined_for={closed: ("json",)})
    given_to = {"int8": 0, "int4": 0}
    for number in range(300):
        request = context(f"user-{number}", slice="json")
        before, after = decide(open_flag, request), decide(flag, request)
        given_to[before.variant] += 1
        wanted = Decision("full", Reason.QUARANTINE) if before.variant == closed else before
        assert after == wanted
        assert decide(flag, context(f"user-{number}", slice="greek")) == before
    assert min(given_to.values()) > 0


def test_a_pin_gives_no_candidate_where_it_is_quarantined() -> None:
    pin = Pin(kind="tenant", subject="acme", variant="int8")
    flag = Flag(pins=(pin,), quarantined_for={"int8": ("json",)})
    assert decide(flag, context(slice="json")) == Decision("full", Reason.QUARANTINE)
    assert decide(flag, context(slice="greek")) == Decision("int8", Reason.PIN)


def test_a_body_that_no_rule_can_read_is_in_every_quarantine() -> None:
    features = RequestFeatures.of({"messages": []})
    features.is_unreadable = True
    flag = Flag(split={"int8": 100.0}, quarantined_for={"int8": ("json",)})
    request = context(slice="greek", features=features)
    assert decide(flag, request) == Decision("full", Reason.QUARANTINE)
    other = Flag(split={"int8": 100.0}, quarantined_for={"int4": ("json",)})
    assert decide(other, request) == Decision("int8", Reason.SPLIT)


def test_the_largest_share_that_may_answer_in_the_slice_stands_in() -> None:
    flag = Flag(split=SHARES, quarantined_for={"int4": ("json",)})
    assert live_candidates(model(flag), "greek") == ("int4",)
    assert live_candidates(model(flag), "json") == ("int8",)


def test_each_candidate_has_a_gate_of_its_own() -> None:
    gates = TrafficGates()
    int8, int4 = gates.of("demo", "int8"), gates.of("demo", "int4")
    flag = Flag(quarantined=("greek",), quarantined_for={"int4": ("json",)})
    gates.apply({"demo": model(flag)})
    slices = ("greek", "json", "other")
    assert [int8.admits(name) for name in slices] == [False, True, True]
    assert [int4.admits(name) for name in slices] == [False, False, True]


def test_a_quarantine_of_what_does_not_exist_is_a_problem() -> None:
    flag = Flag(quarantined_for={"full": ("json",), "int8": ("nosuch",)})
    first, second = flag_problems(model(), flag)
    assert first.startswith("quarantined_for: found ")
    assert second.startswith("quarantined_for.int8[0]: found ")


# On the link


@given(flags(), contexts())
def test_an_older_gateway_gets_a_table_that_it_takes_and_that_gives_no_more(
    flag: Flag, request: Context
) -> None:
    sent = json.loads(push_of("store", snapshot(flag)))
    own = sent.pop("own", None)
    assert (own is not None) == bool(flag.quarantined_for)
    assert "quarantined_for" not in json.dumps(sent)
    older = from_control(json.dumps(sent)).table()  # it ignores what it does not know
    found, strict = decide(flag, request), evaluate(older, request)
    assert strict.variant in ("full", found.variant)


@given(flags())
def test_a_gateway_of_this_release_gets_the_table_as_it_is(flag: Flag) -> None:
    assert from_control(push_of("store", snapshot(flag))).table() == snapshot(flag)
