"""Plans of configurations while a rollout is live: what its candidate's clients get, and why."""

from dataclasses import replace
from typing import Any

import pytest

from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.config_effects import apply_config, draft_of
from penumbra.deployments.history.config_plan import Action, plan_of
from penumbra.deployments.history.events import ConfigPayload, Draft, Event, Kind
from penumbra.deployments.history.key_plan import key_changes
from penumbra.deployments.history.state import EMPTY, State, apply_event, fold
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.rollouts.transitions import replace_fields
from penumbra.router.flags.routing_table import Flag, Match, ModelSnapshot, Pin, Rule, Variant
from penumbra.router.flags.tenant_keys import KeySettings, TenantLimits
from tests.support.control_plane import payload
from tests.support.rollouts import NOW, rollout_spec
from tests.support.routing_tables import model

CONFIG = Draft(kind=Kind.CONFIG, actor="file", reason="first", model=None, payload=payload())


def live_state() -> State:
    """An installation in which int8 has 10 % of the traffic by its rollout."""
    state = apply_event(EMPTY, Event.of(CONFIG, 1, NOW))
    rollout = operator_actions.apply(state, rollout_spec(), "why", NOW, "run")
    for record in (
        rollout.record,
        replace_fields(rollout.record, phase=Phase.LIVE, stage_index=1, proven=("other",)),
    ):
        draft = draft_of(state, rollout.model_copy(update={"record": record}), "ann", "why")
        state = apply_event(state, Event.of(draft, state.epoch + 1, NOW))
    assert state.flags["demo"].split == {"int8": 10.0}
    return state


def plan(state: State, found: ModelSnapshot) -> tuple[list[tuple[Action, str, bool]], State]:
    """The steps of a proposal of one model, and the state that it leads to."""
    proposal = ConfigPayload(models={"demo": found})
    drafts = apply_config(state, proposal, "ann", NOW, "why")
    steps = plan_of(state, proposal, drafts, NOW).steps
    events = (Event.of(draft, state.epoch + n, NOW) for n, draft in enumerate(drafts, start=1))
    return [(step.action, step.text, step.hurts) for step in steps], fold(events, state)


def changed(**update: Any) -> ModelSnapshot:
    return model().model_copy(update=update)


def test_a_candidate_that_is_live_and_goes_away_is_said_to_lose_its_share() -> None:
    steps, after = plan(live_state(), model(variants=("full", "int4", "int3")))
    assert steps == [
        (
            Action.REMOVE,
            "variant int8 of demo, at http://int8.test; 10 % of its model's requests go to the"
            " baseline",
            True,
        ),
        (
            Action.EFFECT,
            "rollout of int8 (demo, 10): the configuration has no candidate int8 any more",
            True,
        ),
    ]
    assert after.flags["demo"].split == {}
    assert after.rollouts["demo", "int8"].record.phase is Phase.OFF


def test_a_baseline_that_changes_under_a_live_rollout_begins_its_evidence_anew() -> None:
    steps, after = plan(live_state(), changed(baseline="int4"))
    assert [(action, hurts) for action, _, hurts in steps] == [
        (Action.CHANGE, True),
        (Action.EFFECT, True),
    ]
    assert "baseline of demo: full -> int4, for all its clients" in steps[0][1]
    assert after.rollouts["demo", "int8"].record.phase is Phase.SHADOW


def test_what_a_live_rollout_does_not_depend_on_leaves_it_alone() -> None:
    state = live_state()
    steps, after = plan(state, model(variants=("full", "int8", "int4", "int3", "int2")))
    assert [(action, hurts) for action, _, hurts in steps] == [(Action.ADD, False)]
    assert after.rollouts == state.rollouts


def test_a_server_that_moves_hurts_where_it_has_traffic() -> None:
    moved = {
        name: found.model_copy(update={"url": f"http://new-{name}.test"})
        for name, found in model().variants.items()
    }
    steps, _ = plan(live_state(), changed(variants=moved))
    assert [hurts for _, _, hurts in steps] == [True, True, False, False]
    assert steps[0][1] == "variant full of demo: url http://full.test -> http://new-full.test"


def test_an_order_of_variants_that_changes_is_said() -> None:
    reordered = dict(reversed(model().variants.items()))
    steps, _ = plan(live_state(), changed(variants=reordered))
    assert steps == [
        (
            Action.CHANGE,
            "model demo: the variants come in another order; no share moves",
            False,
        )
    ]


def key(tenant: str, letter: str, **limits: int) -> KeySettings:
    return KeySettings(tenant=tenant, sha256=letter * 64, limits=TenantLimits(**limits))


def test_limits_that_are_raised_do_not_hurt() -> None:
    changes = key_changes(
        (key("acme", "a", concurrency=2),), (key("acme", "a", requests_per_minute=60),)
    )
    assert [*changes] == [
        ("change", "limit concurrency of acme: 2 -> none", False),
        ("change", "limit requests_per_minute of acme: none -> 60", True),
    ]


def test_the_first_key_and_the_last_one_change_who_is_let_in() -> None:
    keys = (key("acme", "a"),)
    assert [*key_changes((), keys)][-1] == (
        "change",
        "keys are needed from now on: requests without one are refused",
        True,
    )
    assert [*key_changes(keys, ())][-1][1].startswith("no keys are left: every caller is let in")
    assert [*key_changes(keys, keys)] == []


@pytest.mark.parametrize(
    "flag",
    [
        Flag(split={"int8": 1.0}),
        Flag(pins=(Pin(kind="tenant", subject="acme", variant="int8"),)),
        Flag(rules=(Rule(name="r", match=Match(tenants=("acme",)), variant="int8"),)),
        Flag(rules=(Rule(name="r", match=Match(tenants=("acme",)), split={"int8": 5.0}),)),
    ],
)
def test_what_reaches_a_variant_makes_its_change_hurt(flag: Flag) -> None:
    state = apply_event(EMPTY, Event.of(CONFIG, 1, NOW))
    state = replace(state, models={"demo": model(flag)}, flags={"demo": flag})
    other = {**model().variants, "int8": Variant(url="http://elsewhere.test")}
    [(_, text, hurts)], _ = plan(state, changed(variants=other))
    assert (text, hurts) == (
        "variant int8 of demo: url http://int8.test -> http://elsewhere.test",
        True,
    )
    [(_, text, hurts)], _ = plan(state, changed(slices=()))
    assert (text.startswith("slices of demo"), hurts) == (True, True)


def test_a_model_that_comes_back_with_a_share_says_so() -> None:
    flag = Flag(split={"int8": 50.0})
    [(action, text, hurts)], _ = plan(replace(EMPTY, flags={"demo": flag}), model())
    assert action is Action.ADD
    assert text.endswith("; its flag gives requests to int8 at once")
    assert hurts
