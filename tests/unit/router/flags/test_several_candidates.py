"""Several candidates of one model, each with a quarantine and a scope of its own."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from penumbra.monitoring.vocabulary import Reason
from penumbra.router.dispatch.gates import TrafficGates
from penumbra.router.dispatch.plan import live_candidates
from penumbra.router.flags.evaluate import Context, Decision, compile_model, evaluate
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Pin, Scope, Snapshot, Watch
from penumbra.router.flags.validate import flag_problems
from penumbra.router.link.messages import from_control, push_of
from penumbra.router.mirror.selection import compile_mirror
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


# Scopes

SCOPES = (
    Scope(slices=("json", "other")),
    Scope(tenants=("acme",)),
    Scope(headers={"x-team": ("a", "b")}),
    Scope(tenants=("acme", "globex"), headers={"x-team": ("a",)}, slices=("json",)),
)
scopes = st.sampled_from(SCOPES)
RELEASED = dict.fromkeys(("greek", "json", "other"), ("chat", "responses"))


def scoped(flag: Flag, **of: Scope | None) -> ModelSnapshot:
    """The model with a rollout of each of these candidates."""
    watches = tuple(
        Watch(candidate=name, run=f"{name}-1", mirror=1.0, released=RELEASED, scope=scope)
        for name, scope in of.items()
    )
    return model(flag).model_copy(update={"watches": watches})


def is_within(scope: Scope, request: Context) -> bool:
    """Whether a request is in a scope, written out by hand."""
    return (
        (not scope.tenants or request.tenant in scope.tenants)
        and all(request.headers.get(name) in values for name, values in scope.headers.items())
        and (not scope.slices or request.slice in scope.slices)
    )


@given(flags(), contexts(), scopes)
def test_a_scope_takes_the_candidates_share_away_outside_of_it_and_changes_nothing_else(
    flag: Flag, request: Context, scope: Scope
) -> None:
    whole = compile_model("demo", scoped(flag, int8=None, int4=None))
    part = compile_model("demo", scoped(flag, int8=None, int4=scope))
    free, found = evaluate(whole, request), evaluate(part, request)
    is_by_share = free.variant == "int4" and free.reason is Reason.SPLIT
    if is_by_share and not is_within(scope, request):
        assert found == Decision("full", Reason.UNCOMPARED)
    else:
        assert found == free
    assert part.outside(request) == (() if is_within(scope, request) else ("int4",))


def test_the_share_of_a_scope_is_of_its_requests() -> None:
    scope = Scope(tenants=("acme",))
    compiled = compile_model("demo", scoped(Flag(split={"int4": 25.0}), int4=scope))
    counts = {
        tenant: sum(
            evaluate(compiled, context(f"user-{number}", tenant=tenant)).variant == "int4"
            for number in range(4_000)
        )
        for tenant in ("acme", "globex")
    }
    assert abs(counts["acme"] / 4_000 - 0.25) < 0.05
    assert counts["globex"] == 0


def test_a_request_outside_of_the_scope_is_not_mirrored_for_the_candidate() -> None:
    found = compile_mirror("demo", scoped(Flag(), int8=None, int4=SCOPES[0]))
    assert found is not None
    chosen = found.chosen(b"r", "greek", "full", ("int4",))
    assert [run.candidate for run in chosen] == ["int8"]
    assert [run.candidate for run in found.chosen(b"r", "json", "full")] == ["int8", "int4"]


def test_a_candidate_stands_in_for_the_baseline_only_where_its_scope_says_so() -> None:
    flag = Flag(split=SHARES)
    by_slice = scoped(flag, int8=None, int4=Scope(slices=("json",)))
    assert live_candidates(by_slice, "json") == ("int4",)
    assert live_candidates(by_slice, "greek") == ("int8",)
    by_tenant = scoped(flag, int8=None, int4=Scope(tenants=("acme",)))
    assert live_candidates(by_tenant, "json") == ("int8",)


def test_a_scope_has_a_condition() -> None:
    with pytest.raises(ValidationError, match="found no condition"):
        Scope()


@given(flags(), contexts(), scopes)
def test_an_older_gateway_gives_a_scoped_candidate_no_share_and_mirrors_nothing_for_it(
    flag: Flag, request: Context, scope: Scope
) -> None:
    found = scoped(flag, int8=None, int4=scope)
    table = Snapshot(epoch=1, models={"demo": found})
    sent = json.loads(push_of("store", table))
    assert from_control(json.dumps(sent)).table() == table
    del sent["own"]
    assert "scope" not in json.dumps(sent)
    older = from_control(json.dumps(sent)).table()
    strict = evaluate(older, request)
    assert strict.variant in ("full", evaluate(table, request).variant)
    if strict.variant == "int4":
        assert strict.reason is not Reason.SPLIT
    mirror = compile_mirror("demo", older.models["demo"])
    assert mirror is not None
    assert "int4" not in {run.candidate for run in mirror.chosen(b"r", request.slice, "full")}


# Leases


def test_a_candidate_without_a_lease_of_its_own_gets_nothing_and_the_other_does() -> None:
    flag = Flag(split=SHARES)
    for number in range(50):
        before = decide(flag, context(f"user-{number}"))
        after = decide(flag, context(f"user-{number}", unguarded=("int4",)))
        is_without = before.variant == "int4"
        assert after == (Decision("full", Reason.LEASE_EXPIRED) if is_without else before)
