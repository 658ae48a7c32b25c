"""Counters of the history."""

from datetime import timedelta
from typing import Any

import pytest

from penumbra.deployments.actors import actor_class
from penumbra.deployments.history.events import Event, FlagPayload, Kind
from penumbra.deployments.metrics.history_counters import HistoryCounters
from penumbra.deployments.rollouts.change_text import change_of
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.deployments.rollouts.record import (
    Graduation,
    Hold,
    Phase,
    Rollout,
    RolloutRecord,
    Verdict,
)
from penumbra.deployments.rollouts.transitions import replace_fields, restart
from penumbra.monitoring.telemetry import labels
from penumbra.router.flags.routing_table import Flag
from tests.support.rollouts import NOW, rollout_spec

RECORD = RolloutRecord(
    phase=Phase.LIVE, stage_index=1, since=NOW, run="r-1", slices=("json", "other"), cause="c"
)
HELD = Hold(by="operator", cause="wait")


def rollout(record: RolloutRecord = RECORD, **changes: Any) -> Rollout:
    return Rollout(spec=rollout_spec(), record=replace_fields(record, **changes))


def payload(before: Rollout | None, after: Rollout) -> RolloutPayload:
    return RolloutPayload(before=before, after=after, flag_before=Flag(), flag_after=Flag())


OFF = rollout(phase=Phase.OFF, stage_index=0)
BACK = rollout(phase=Phase.ROLLED_BACK, verdict=Verdict.FAIL)
SHADOW = rollout(phase=Phase.SHADOW, stage_index=0)
PROMOTED = rollout(phase=Phase.PROMOTED, stage_index=2)
FRESH = rollout(restart(RECORD, NOW, "anew"))
OTHER_SPEC = Rollout(spec=rollout_spec(alpha=0.02), record=RECORD)
GRADUATED = rollout(phase=Phase.OFF, graduated=Graduation(baseline="full", kept_until=NOW))
STORY: list[tuple[str, Rollout | None, Rollout]] = [
    ("graduated", PROMOTED, GRADUATED),
    ("applied", None, SHADOW),
    ("applied", OFF, FRESH),
    ("applied", rollout(), OTHER_SPEC),
    ("applied", BACK, Rollout(spec=OTHER_SPEC.spec, record=replace_fields(BACK.record, run="r-2"))),
    ("advanced", SHADOW, rollout()),
    ("advanced", rollout(), rollout(stage_index=2)),
    ("promoted", rollout(stage_index=2), PROMOTED),
    ("held", rollout(), rollout(held=HELD)),
    ("resumed", rollout(held=HELD), rollout()),
    ("quarantined", rollout(), rollout(quarantined=("json",))),
    ("quarantined", rollout(), rollout(quarantined=("json",), stage_index=2)),
    ("rolled_back", rollout(held=HELD), BACK),
    ("rolled_back", rollout(), rollout(phase=Phase.ROLLED_BACK, quarantined=("json",))),
    ("rearmed", BACK, FRESH),
    ("restarted", rollout(), FRESH),
    ("restarted", SHADOW, FRESH),
    ("ended", rollout(), OFF),
    ("ended", BACK, OFF),
    ("other", rollout(), rollout(verdict=Verdict.PASS, is_passed=True)),
    ("other", rollout(), rollout(frozen="broken", verdict=Verdict.ERROR)),
    ("other", rollout(), rollout(proven=("json",))),
    ("stale", rollout(), rollout(stale={"json": "script: han"})),
    ("renewed", rollout(stale={"json": "script: han"}), rollout()),
    ("advanced", rollout(), rollout(stale={"json": "script: han"}, stage_index=2)),
]


@pytest.mark.parametrize(("change", "before", "after"), STORY)
def test_a_change_is_named_by_its_effect_on_the_rollout(
    change: str, before: Rollout | None, after: Rollout
) -> None:
    assert change_of(payload(before, after)) == change


def test_every_name_of_a_change_is_used_and_registered() -> None:
    assert {change for change, _, _ in STORY} == set(labels.CHANGE.values)


def test_an_actor_is_counted_by_class_and_not_by_name() -> None:
    actors = ["guard", "alertmanager", "ann", "configuration", "Guard "]
    assert [actor_class(actor) for actor in actors] == [
        "guard", "alertmanager", "operator", "operator", "operator",
    ]  # fmt: skip
    assert {actor_class(actor) for actor in actors} == set(labels.ACTOR.values)


def test_each_event_is_counted_by_kind_and_by_the_change_of_its_rollout() -> None:
    history_counters = HistoryCounters()
    stories = [
        ("ann", payload(None, SHADOW)),
        ("guard", payload(SHADOW, rollout())),
        ("guard", payload(rollout(), BACK)),
        ("ann", payload(BACK, FRESH)),
        ("alertmanager", payload(FRESH, BACK)),
    ]
    events = [
        Event(
            kind=Kind.ROLLOUT, actor=actor, reason="r", model="demo", payload=one, epoch=epoch,
            at=NOW + timedelta(seconds=epoch),
        )
        for epoch, (actor, one) in enumerate(stories, start=1)
    ]  # fmt: skip
    flag = FlagPayload(before=Flag(), after=Flag(killed=True))
    kill = Event(
        kind=Kind.KILL, actor="ann", reason="r", model="demo", payload=flag, epoch=6, at=NOW
    )
    history_counters.take(events[:2])
    history_counters.take([*events[2:], kill])
    assert history_counters.kinds == {"rollout": 5, "kill": 1}
    key = ("demo", "int8")
    assert history_counters.changes == {
        (*key, "applied"): 1, (*key, "advanced"): 1, (*key, "rolled_back"): 2, (*key, "rearmed"): 1,
    }  # fmt: skip
    assert history_counters.rollbacks == {(*key, "guard"): 1, (*key, "alertmanager"): 1}
    assert history_counters.last_rollback == {key: NOW.timestamp() + 5}
