"""A failed build stays out, and what keeps it out is not undone by leaving it unsaid."""

import pytest

from penumbra.deployments.history import config_effects, operator_actions
from penumbra.deployments.history.events import ConfigPayload, Event
from penumbra.deployments.history.flag_edits import replace_with
from penumbra.deployments.history.state import EMPTY, State, apply_event
from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.router.flags.evaluate import evaluate
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Pin
from tests.support.rollouts import NOW, rollout_spec
from tests.support.routing_tables import context, model

PINNED = Pin(kind="tenant", subject="acme", variant="int8")
KEY = ("demo", "int8")


def configured(state: State, **models: ModelSnapshot) -> State:
    for draft in config_effects.apply_config(state, ConfigPayload(models=models), "c", NOW):
        state = apply_event(state, Event.of(draft, state.epoch + 1, NOW))
    return state


def put(state: State, rollout: Rollout) -> State:
    draft = config_effects.draft_of(state, rollout, "ann", "test")
    return apply_event(state, Event.of(draft, state.epoch + 1, NOW))


def rolled_back() -> State:
    state = configured(EMPTY, demo=model(flag=Flag(pins=(PINNED,))))
    state = put(state, operator_actions.apply(state, rollout_spec(), "try", NOW, "run"))
    return put(state, operator_actions.rollback(state.rollouts[KEY], "bad answers", NOW))


def ended() -> State:
    state = rolled_back()
    return put(state, operator_actions.end(state.rollouts[KEY], "over", NOW))


def answered_by(state: State) -> str:
    return evaluate(state.snapshot(), context()).variant


def test_the_end_of_a_rollout_does_not_give_its_failed_build_to_pinned_users() -> None:
    state = ended()
    assert state.rollouts[KEY].record.phase is Phase.OFF
    assert state.flags["demo"].blocked == ("int8",)
    assert answered_by(state) == "full"


def test_a_failed_build_that_leaves_the_configuration_is_blocked_when_it_is_back() -> None:
    for state in (rolled_back(), ended()):
        flag = state.flags["demo"].model_copy(update={"pins": ()})
        bare = model(flag=flag)
        without = bare.model_copy(update={"variants": {"full": bare.variants["full"]}})
        gone = configured(state, demo=without)
        assert gone.flags["demo"].blocked == ()
        back = configured(gone, demo=bare)
        assert back.flags["demo"].blocked == ("int8",)
        assert configured(back, demo=bare).epoch == back.epoch + 1  # said once


def test_it_is_let_in_again_by_name_only() -> None:
    state = ended()
    flag = replace_with(Flag(blocked=()))(state.flags["demo"], state.models["demo"])
    assert flag.blocked == ()
    applied = put(state, operator_actions.apply(state, rollout_spec(), "mended", NOW, "run"))
    assert applied.flags["demo"].blocked == ()
    again = put(applied, operator_actions.end(applied.rollouts[KEY], "enough", NOW))
    assert again.flags["demo"].blocked == ()


@pytest.mark.parametrize(
    "kept",
    [
        {"killed": True},
        {"blocked": ("int8",)},
        {"quarantined": ("json",)},
        {"quarantined_for": {"int8": ("json",)}},
        {"pins": (PINNED,)},
    ],
)
def test_a_flag_that_leaves_a_safety_field_out_keeps_it(kept: dict[str, object]) -> None:
    edit = replace_with(Flag.model_validate({"split": {"int8": 10.0}}))
    after = edit(Flag.model_validate(kept | {"split": {"int8": 90.0}}), model())
    assert after == Flag.model_validate(kept | {"split": {"int8": 10.0}})
    (name,) = kept
    named = replace_with(Flag.model_validate({name: Flag.model_fields[name].get_default()}))
    assert named(Flag.model_validate(kept), model()) == Flag()
