from typing import Any

import pytest

from penumbra.deployments.rollouts.channel_release import release_channels
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.flag_effects import watch_of
from penumbra.deployments.rollouts.record import (
    Phase,
    Rollout,
    RolloutRecord,
)
from penumbra.deployments.rollouts.transitions import restart
from tests.support.rollouts import NOW, rollout_spec

SPEC = rollout_spec()


def record(**changes: Any) -> RolloutRecord:
    fields: dict[str, Any] = {
        "phase": Phase.SHADOW,
        "since": NOW,
        "run": "r-1",
        "slices": ("json", "other"),
        "cause": "test",
        "released": {},
    }
    return RolloutRecord(**(fields | changes))


def findings(**changes: Any) -> Findings:
    fields: dict[str, Any] = {"run": "r-1", "pairs": 100, "covered": {"other": ("chat",)}}
    return Findings(**(fields | changes))


def test_a_channel_is_released_when_it_is_proven_and_stays_so() -> None:
    after, steps = release_channels(SPEC, record(), findings())
    assert after.released == {"other": ("chat",)}
    assert [step.cause for step in steps] == ["compared and within tolerance: other by chat"]
    assert release_channels(SPEC, after, findings()) == (after, [])
    more, _ = release_channels(SPEC, after, findings(covered={"other": ("responses",)}))
    assert more.released == {"other": ("chat", "responses")}


@pytest.mark.parametrize(
    ("held_back", "found"),
    [({"frozen": "broken"}, {}), ({}, {"pairs": 1000}), ({"released": None}, {})],
    ids=["instrument broken", "horizon over", "older run"],
)
def test_nothing_is_released(held_back: dict[str, Any], found: dict[str, Any]) -> None:
    before = record(**held_back)
    assert release_channels(SPEC, before, findings(**found)) == (before, [])


def test_a_slice_goes_live_only_with_a_channel_to_release() -> None:
    proven = findings(proven=("other",), seen=("other",), is_aggregate_proven=True)
    for covered, expected in (({}, ()), ({"other": ("responses",)}, ("other",))):
        found = Findings(**{**_fields(proven), "covered": covered})
        after, _ = decide(SPEC, record(), found, NOW)
        assert after.proven == expected
    # A run of an older store releases what it did.
    after, _ = decide(SPEC, record(released=None), Findings(**_fields(proven)), NOW)
    assert after.proven == ("other",)


def _fields(found: Findings) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"phase": Phase.LIVE}, {"other": ("chat",)}),
        ({"phase": Phase.PROMOTED}, {"other": ("chat",)}),
        ({"phase": Phase.SHADOW}, None),
        ({"phase": Phase.LIVE, "released": None}, None),
        ({"phase": Phase.LIVE, "proven": ("json", "other")}, {"json": (), "other": ("chat",)}),
    ],
)
def test_a_watch_names_the_channels_of_proven_slices(
    changes: dict[str, Any], expected: dict[str, tuple[str, ...]] | None
) -> None:
    fields = {"stage_index": 1, "proven": ("other",), "released": {"other": ("chat",)}}
    watch = watch_of(Rollout(spec=SPEC, record=record(**(fields | changes))))
    assert watch is not None
    assert watch.released == expected


def test_a_new_run_has_released_nothing() -> None:
    assert restart(record(released={"other": ("chat",)}), NOW, "again").released == {}
    assert restart(record(released=None), NOW, "again").released == {}


def test_the_record_of_an_older_store_is_read() -> None:
    stored = record(released={"other": ("chat",)}).model_dump(mode="json")
    assert RolloutRecord.model_validate(stored).released == {"other": ("chat",)}
    del stored["released"]
    assert RolloutRecord.model_validate(stored).released is None
