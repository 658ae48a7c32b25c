"""Two candidates of one model, and a flag that people change too: whose quarantine, whose share."""

from datetime import timedelta
from typing import Any

import pytest

from penumbra.deployments.errors import Conflict, RolloutRefused
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.config_effects import (
    apply_config,
    draft_of,
    obstacle_of,
    require_unguarded,
)
from penumbra.deployments.history.events import Draft, Event, FlagPayload, Kind
from penumbra.deployments.history.state import EMPTY, State, apply_event
from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import Arbitration, Hold, Phase, Rollout, Verdict
from penumbra.deployments.rollouts.spec import Guardrail
from penumbra.deployments.rollouts.transitions import replace_fields
from penumbra.monitoring.observations import Signal
from penumbra.router.flags.routing_table import Flag, Scope
from penumbra.router.flags.validate import flag_problems
from tests.support.control_plane import payload
from tests.support.rollouts import NOW, rollout_spec
from tests.support.routing_tables import model

INT8, INT4 = ("demo", "int8"), ("demo", "int4")
CONFIG = Draft(kind=Kind.CONFIG, actor="file", reason="first", model=None, payload=payload())


class Story:
    """An installation to which one thing happens after another."""

    def __init__(self) -> None:
        self.state: State = EMPTY
        self.happens(CONFIG)

    def happens(self, draft: Draft) -> None:
        self.state = apply_event(self.state, Event.of(draft, self.state.epoch + 1, NOW))

    def becomes(self, rollout: Rollout) -> None:
        self.happens(draft_of(self.state, rollout, "ann", "why"))

    def applies(self, candidate: str, **changes: Any) -> None:
        spec = rollout_spec(candidate=candidate, **changes)
        self.becomes(operator_actions.apply(self.state, spec, "why", NOW, candidate))

    def goes(self, candidate: str, **update: Any) -> None:
        rollout = self.state.rollouts["demo", candidate]
        record = replace_fields(rollout.record, **update)
        self.becomes(rollout.model_copy(update={"record": record}))

    def goes_live(self, candidate: str, *proven: str, at: int = 1) -> None:
        self.goes(candidate, phase=Phase.LIVE, stage_index=at, proven=proven)

    def is_edited(self, **update: Any) -> None:
        after = self.flag.model_copy(update=update)
        change = FlagPayload(before=self.flag, after=after)
        self.happens(Draft(kind=Kind.SET, actor="ann", reason="w", model="demo", payload=change))

    @property
    def flag(self) -> Flag:
        return self.state.flags["demo"]

    def open_to(self, candidate: str) -> set[str]:
        slices = self.state.rollouts["demo", candidate].record.slices
        return set(slices) - set(self.flag.closed_to(candidate))


def back_in_shadow(story: Story) -> None:
    rollout = story.state.rollouts[INT8]
    story.becomes(operator_actions.rollback(rollout, "why", NOW))
    story.goes_live("int4", "other")
    story.becomes(operator_actions.rearm(story.state, story.state.rollouts[INT8], "why", NOW))


def ended_and_applied_again(story: Story) -> None:
    story.becomes(operator_actions.end(story.state.rollouts[INT8], "why", NOW))
    story.goes_live("int4", "other")
    story.applies("int8")


@pytest.mark.parametrize("happens", [back_in_shadow, ended_and_applied_again])
def test_a_rollout_that_is_over_does_not_open_the_slices_of_the_one_that_is_live(
    happens: Any,
) -> None:
    story = Story()
    for candidate in ("int8", "int4"):
        story.applies(candidate)
    story.goes_live("int8", "json", "other")
    happens(story)
    assert story.state.rollouts[INT4].record.phase is Phase.LIVE
    assert story.open_to("int4") == {"other"}


def test_each_live_candidate_has_a_quarantine_of_its_own() -> None:
    story = Story()
    for candidate in ("int8", "int4"):
        story.applies(candidate)
    story.goes_live("int8", "json", "other")
    story.goes_live("int4", "greek", "other")
    assert story.open_to("int8") == {"json", "other"}
    assert story.open_to("int4") == {"greek", "other"}
    before = story.flag
    story.goes("int8", quarantined=("other",), proven=("json",))
    assert story.open_to("int8") == {"json"}
    assert story.open_to("int4") == {"greek", "other"}
    assert story.flag.split == before.split
    story.becomes(operator_actions.rollback(story.state.rollouts[INT8], "why", NOW))
    assert story.flag.quarantined_for == {"int4": ("json",)}


def test_a_second_candidate_goes_live_where_the_shares_fit_and_a_rollback_takes_its_own() -> None:
    story = Story()
    story.applies("int8", stages=("shadow", 10.0, 60.0))
    story.applies("int4", stages=("shadow", 40.0, 50.0))
    story.goes_live("int8", "other", at=2)
    assert obstacle_of(story.state, story.state.rollouts[INT4]) is None
    story.goes_live("int4", "other", at=1)
    assert story.flag.split == {"int8": 60.0, "int4": 40.0}
    obstacle = obstacle_of(story.state, story.state.rollouts[INT4])
    assert obstacle == "other candidates have 60 % of the split, the stage wants 50 %"
    story.becomes(operator_actions.rollback(story.state.rollouts[INT4], "why", NOW))
    assert (story.flag.split, story.flag.blocked) == ({"int8": 60.0, "int4": 40.0}, ("int4",))
    assert story.open_to("int8") == {"other"}
    assert story.state.rollouts[INT8].record.phase is Phase.LIVE


def test_the_alpha_of_a_model_is_the_sum_of_those_under_guard() -> None:
    story = Story()
    story.applies("int8", alpha=0.02, candidates=2)
    assert story.state.guard_alpha("demo") == 0.01
    story.applies("int4", alpha=0.02, candidates=2)
    assert story.state.guard_alpha("demo") == 0.02
    story.becomes(operator_actions.rollback(story.state.rollouts[INT4], "why", NOW))
    assert story.state.guard_alpha("demo") == 0.01


def test_a_quarantine_that_an_older_release_made_becomes_the_candidates_own() -> None:
    story = Story()
    story.applies("int8")
    story.goes_live("int8", "json", "other")
    # As the release before left it: the rollout's quarantine is the whole model's.
    old = story.state.rollouts[INT8]
    record = replace_fields(old.record, outside=("json",))
    flag = story.flag.model_copy(update={"quarantined": ("greek", "json"), "quarantined_for": {}})
    stored = RolloutPayload(
        before=old,
        after=old.model_copy(update={"record": record}),
        flag_before=story.flag,
        flag_after=flag,
    )
    story.happens(
        Draft(kind=Kind.ROLLOUT, actor="guard", reason="old", model="demo", payload=stored)
    )
    assert story.open_to("int8") == {"other"}
    with pytest.raises(Conflict):
        require_unguarded(story.state, "demo", flag, flag.model_copy(update={"quarantined": ()}))
    story.goes("int8", cause="anything")
    assert story.flag.quarantined == ("json",)  # what a person had set before
    assert story.flag.quarantined_for == {"int8": ("greek",)}
    assert story.open_to("int8") == {"other"}
    assert story.state.rollouts[INT8].record.outside is None


def test_a_quarantine_set_by_hand_is_the_operators_while_a_candidate_is_live() -> None:
    story = Story()
    story.applies("int8")
    story.goes_live("int8", "json", "other")
    flag = story.flag
    by_hand = flag.model_copy(update={"quarantined": ("json",)})
    require_unguarded(story.state, "demo", flag, by_hand)
    own = flag.model_copy(update={"quarantined_for": {}})
    with pytest.raises(Conflict, match="quarantine of int8"):
        require_unguarded(story.state, "demo", flag, own)
    story.is_edited(quarantined=("json",))
    story.goes("int8", cause="anything")
    assert story.open_to("int8") == {"other"}


def test_a_quarantine_made_by_hand_outlasts_the_rollouts_before_and_after_it() -> None:
    story = Story()
    story.applies("int8")
    story.goes_live("int8", "json", "other")
    story.becomes(operator_actions.rollback(story.state.rollouts[INT8], "why", NOW))
    story.is_edited(quarantined=("json",))
    story.becomes(operator_actions.rearm(story.state, story.state.rollouts[INT8], "why", NOW))
    assert story.flag.quarantined == ("json",)
    story.goes_live("int8", "json", "other")
    assert story.flag.quarantined == ("json",)
    assert story.open_to("int8") == {"other"}


def test_what_a_stage_gives_leaves_the_flag_valid() -> None:
    story = Story()
    for candidate in ("int8", "int4"):
        story.applies(candidate)
    story.goes_live("int8", "json", "other", at=1)
    story.becomes(operator_actions.rollback(story.state.rollouts[INT8], "why", NOW))
    assert story.flag.split == {"int8": 10.0}  # its answers say GUARD
    story.goes_live("int4", "other", at=2)
    assert story.flag.split == {"int4": 100.0}
    assert not list(flag_problems(model(), story.flag))


def test_a_share_given_by_hand_is_room_that_a_stage_has_not() -> None:
    story = Story()
    story.is_edited(split={"int4": 60.0})
    story.applies("int8")
    rollout = story.state.rollouts[INT8]
    assert obstacle_of(story.state, rollout) is None  # the stage wants 10
    story.goes_live("int8", "other", at=1)
    rollout = story.state.rollouts[INT8]
    obstacle = obstacle_of(story.state, rollout)
    assert obstacle is not None
    assert "60" in obstacle
    findings = Findings(run=rollout.record.run, pairs=20, seen=("other",), proven=("other",))
    with pytest.raises(Conflict, match="60"):
        operator_actions.promote(story.state, rollout, findings, NOW + timedelta(days=1))


def test_nothing_advances_while_the_flag_is_killed() -> None:
    story = Story()
    story.applies("int8")
    story.is_edited(killed=True)
    assert obstacle_of(story.state, story.state.rollouts[INT8]) == "the kill switch is on"
    story.is_edited(killed=False)
    assert obstacle_of(story.state, story.state.rollouts[INT8]) is None


def test_a_rollout_that_was_held_when_it_ended_begins_unheld() -> None:
    story = Story()
    story.applies("int8")
    story.goes("int8", held=Hold(by="operator", cause="wait"))
    story.becomes(operator_actions.end(story.state.rollouts[INT8], "why", NOW))
    story.applies("int8")
    assert story.state.rollouts[INT8].record.held is None


@pytest.mark.parametrize("signal", [Signal.FAILURE, Signal.TTFT, Signal.FEEDBACK])
def test_a_rule_for_missing_data_is_refused_where_nothing_can_be_missing(signal: Signal) -> None:
    story = Story()
    harm = Guardrail(
        signal=Signal.HARM, tolerance=0.1, action="rollback", share=0.5, missing="worst"
    )
    odd = Guardrail(signal=signal, tolerance=0.1, action="hold", missing="worst")
    spec = rollout_spec(guardrails=(harm, odd))
    with pytest.raises(RolloutRefused, match=rf"guardrails\.{signal}\.missing.*worst"):
        operator_actions.apply(story.state, spec, "why", NOW, "int8")
    operator_actions.apply(story.state, rollout_spec(guardrails=(harm,)), "why", NOW, "int8")


def test_a_verdict_that_waits_is_given_up_where_the_model_changes() -> None:
    story = Story()
    story.applies("int8")
    plan = Arbitration(signal="harm", slices=("json",), until_pairs=500)
    story.goes("int8", phase=Phase.ROLLED_BACK, verdict=Verdict.FAIL, arbitration=plan)
    for drafted in apply_config(story.state, payload(), "file", NOW):
        story.happens(drafted)
    assert story.state.rollouts[INT8].record.arbitration == plan
    other = model().model_copy(update={"slices": ()})
    for drafted in apply_config(story.state, payload(demo=other), "file", NOW):
        story.happens(drafted)
    record = story.state.rollouts[INT8].record
    assert (record.phase, record.verdict, record.arbitration) == (
        Phase.ROLLED_BACK,
        Verdict.INCONCLUSIVE,
        None,
    )


SCOPE = Scope(slices=("json", "other"), tenants=("acme",))


def test_a_scope_is_in_the_watch_and_its_other_slices_stay_closed() -> None:
    story = Story()
    story.applies("int8")
    story.applies("int4", scope=SCOPE)
    for candidate in ("int8", "int4"):
        story.goes_live(candidate, "json", "other")
    assert [watch.scope for watch in story.state.models["demo"].watches] == [None, SCOPE]
    assert story.open_to("int4") == {"json", "other"}
    plan = Arbitration(signal="harm", slices=("json",), until_pairs=500)
    story.goes("int4", phase=Phase.ROLLED_BACK, verdict=Verdict.FAIL, arbitration=plan)
    assert story.state.models["demo"].watches[-1].scope == SCOPE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scope": Scope(slices=("nosuch",))}, r'scope\.slices: found "nosuch"'),
        ({"scope": Scope(headers={"X-Team": ("a",)})}, r"scope\.headers"),
        ({"scope": SCOPE, "required_slices": ("greek",)}, "required_slices: .*json, other"),
    ],
)
def test_a_scope_that_does_not_fit_the_model_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RolloutRefused, match=words):
        operator_actions.apply(Story().state, rollout_spec(**changes), "why", NOW, "int8")


def test_another_scope_begins_the_rollout_anew() -> None:
    story = Story()
    story.applies("int8")
    story.goes_live("int8", "json", "other")
    before = story.state.rollouts[INT8].record.run
    story.applies("int8", scope=SCOPE)
    record = story.state.rollouts[INT8].record
    assert (record.phase, story.flag.split) == (Phase.SHADOW, {})
    assert record.run != before
