"""Graduation: a promoted candidate becomes the baseline, and one operation takes that back."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from penumbra.deployments.history.config_effects import draft_of
from penumbra.deployments.history.events import Event
from penumbra.deployments.history.recovered import Known, draft_recovery
from penumbra.deployments.history.state import apply_event
from penumbra.deployments.rollouts.record import Hold, Phase
from penumbra.deployments.rollouts.transitions import replace_fields
from penumbra.monitoring.observations import Run
from penumbra.router.flags.routing_table import ModelSnapshot, Pin, Variant
from penumbra.router.flags.validate import flag_problems
from penumbra.router.link.table_identity import Restriction
from tests.support.rollouts import NOW, pairs, rollout_spec
from tests.support.routing_tables import model
from tests.support.whole_plane import WholePlane, whole_plane

KEY = ("demo", "int8")
VARIANTS = {name: Variant(url=f"http://{name}.test") for name in ("full", "int8", "awq")}


@pytest.fixture
async def plane(tmp_path: Any) -> AsyncIterator[WholePlane]:
    async with whole_plane(tmp_path, demo=model().model_copy(update={"variants": VARIANTS})) as it:
        await it.apply(spec())
        yield it


def spec(candidate: str = "int8") -> dict[str, Any]:
    return rollout_spec(candidate=candidate).model_dump(mode="json")


async def promote(plane: WholePlane, key: tuple[str, str] = KEY, **changes: Any) -> None:
    """Put the rollout where the guard would after days: promoted, all slices proven."""
    controller = plane.parts.controller
    rollout = controller.state.rollouts[key]
    slices = rollout.record.slices
    update: dict[str, Any] = {
        "phase": Phase.PROMOTED,
        "stage_index": 2,
        "proven": slices,
        "released": dict.fromkeys(slices, ("chat", "completions")),
    }
    record = replace_fields(rollout.record, **(update | changes))
    after = rollout.model_copy(update={"record": record})
    draft = draft_of(controller.state, after, "guard", "through all stages")
    async with controller.writing():
        await controller.commit([draft])


async def graduate(plane: WholePlane, **body: Any) -> Any:
    return await plane.change("POST", "/rollouts/int8/graduate?model=demo", **body)


async def refused(plane: WholePlane, **body: Any) -> str:
    answer = await plane.client.post(
        "/admin/v1/rollouts/int8/graduate?model=demo", json={"reason": "test"} | body
    )
    assert answer.status_code == 409, answer.text
    text: str = answer.json()["error"]["message"]
    return text


def served(plane: WholePlane) -> ModelSnapshot:
    return plane.parts.controller.state.models["demo"]


async def test_the_candidate_is_the_baseline_and_the_old_one_stays(plane: WholePlane) -> None:
    await promote(plane)
    gateway = await plane.connect("gateway-0")
    answer = await graduate(plane)
    assert answer["rollout"]["stage"] == "graduated"
    assert answer["gateways"]["acknowledged"] == 1
    found = served(plane)
    assert (found.baseline, [*found.variants]) == ("int8", ["full", "int8", "awq"])
    assert (found.flag.split, found.flag.blocked, found.watches) == ({}, (), ())
    assert gateway.tables[-1].models["demo"].baseline == "int8"
    view = (await plane.client.get("/admin/v1/rollouts/int8?model=demo")).json()
    assert view["graduated"]["baseline"] == "full"


async def test_a_rollback_goes_back_to_the_old_baseline(plane: WholePlane) -> None:
    await promote(plane)
    await graduate(plane)
    answer = await plane.change("POST", "/rollouts/int8/rollback?model=demo")
    assert answer["rollout"]["stage"] == "rolled_back"
    found = served(plane)
    assert (found.baseline, found.flag.blocked) == ("full", ("int8",))
    again = await plane.change("POST", "/rollouts/int8/rearm?model=demo")
    assert again["rollout"]["stage"] == "shadow"


async def test_both_are_one_step_for_gateways(plane: WholePlane) -> None:
    """No table in between gives clients anything else."""
    await promote(plane)
    gateway = await plane.connect("gateway-0")
    for path in ("graduate", "rollback"):
        before = len(gateway.tables)
        await plane.change("POST", f"/rollouts/int8/{path}?model=demo")
        assert len(gateway.tables) == before + 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"phase": Phase.LIVE, "stage_index": 1}, "found the stage 10, wanted promoted"),
        ({"proven": ()}, "never proven in greek, json, other"),
        ({"held": Hold(by="operator", cause="freeze")}, "it is held (freeze)"),
        ({"stale": {"other": "half of the prompts are greek"}}, "its proof is stale in other"),
        ({"frozen": "the baseline differs from itself"}, "the instrument is broken"),
    ],
)
async def test_what_is_not_proven_does_not_graduate(
    plane: WholePlane, changes: dict[str, Any], told: str
) -> None:
    await promote(plane, **changes)
    assert told in await refused(plane)
    assert served(plane).baseline == "full"


async def test_channels_that_came_and_were_not_released_are_named(plane: WholePlane) -> None:
    await promote(plane, released={"other": ()})
    run = plane.parts.controller.state.rollouts[KEY].record.run
    await plane.report(Run("demo", "int8", run), pairs(5, 0.0))
    assert "never proven by chat in other" in await refused(plane)


async def test_a_scope_is_not_all_requests(plane: WholePlane) -> None:
    await plane.change("PUT", "/rollouts", spec=spec() | {"scope": {"tenants": ["acme"]}})
    await promote(plane)
    assert "its rollout has a scope" in await refused(plane)


async def test_an_operator_may_accept_what_is_unproven(plane: WholePlane) -> None:
    await promote(plane, proven=())
    await refused(plane)
    await graduate(plane, accept_unproven=True)
    assert served(plane).baseline == "int8"


async def test_other_candidates_begin_anew_and_say_what_they_are_measured_against(
    plane: WholePlane,
) -> None:
    await promote(plane)
    await plane.change("PUT", "/rollouts", spec=spec("awq"))
    await graduate(plane)
    view = (await plane.client.get("/admin/v1/rollouts/awq?model=demo")).json()
    assert (view["stage"], view["run"][-2:]) == ("shadow", "-2")
    assert view["measured_against"] == (
        "measured against int8, itself within tolerance of full (displacement 0.2):"
        " tolerances add up"
    )
    await plane.change("POST", "/rollouts/int8/rollback?model=demo")
    view = (await plane.client.get("/admin/v1/rollouts/awq?model=demo")).json()
    assert (view["measured_against"], view["run"][-2:]) == (None, "-3")


async def test_a_flag_that_refers_to_it_as_a_candidate_is_named(plane: WholePlane) -> None:
    await promote(plane)
    rule = {"name": "half", "match": {"tenants": ["acme"]}, "split": {"int8": 50}}
    await set_flag(plane, rules=[rule])
    assert "rules[0].split.int8" in await refused(plane)
    assert plane.parts.controller.state.rollouts[KEY].record.phase is Phase.PROMOTED


async def set_flag(plane: WholePlane, **fields: Any) -> None:
    flag = served(plane).flag.model_dump(mode="json") | fields
    answer = await plane.client.put(
        "/admin/v1/flags/demo",
        json={"reason": "test", "flag": flag},
        headers={"if-match": str(plane.parts.controller.state.epoch)},
    )
    assert answer.status_code == 200, answer.text


async def test_what_operators_keep_on_the_baseline_is_named(plane: WholePlane) -> None:
    await promote(plane)
    rule = {"name": "careful", "match": {"tenants": ["acme"]}, "variant": "full"}
    await set_flag(plane, quarantined=["json"], rules=[rule])
    told = await refused(plane)
    assert "quarantined by hand: json" in told
    assert "kept on full by the rule careful" in told


async def test_a_killed_model_does_not_graduate(plane: WholePlane) -> None:
    await promote(plane)
    await plane.change("POST", "/flags/demo/kill")
    assert "the kill switch is on" in await refused(plane, accept_unproven=True)


async def test_whatever_the_flag_says_of_the_old_baseline_it_is_taken_back(
    plane: WholePlane,
) -> None:
    await promote(plane)
    await graduate(plane)
    rule = {"name": "some", "match": {"tenants": ["acme"]}, "split": {"full": 50, "awq": 5}}
    await set_flag(plane, split={"full": 5.0}, rules=[rule])
    await plane.change("POST", "/rollouts/int8/rollback?model=demo")
    found = served(plane)
    assert (found.baseline, found.flag.split, found.flag.blocked) == ("full", {}, ("int8",))
    assert found.flag.rules[0].split == {"awq": 5.0}


async def test_also_if_the_old_baseline_was_a_candidate_that_failed(plane: WholePlane) -> None:
    await promote(plane)
    await graduate(plane)
    await plane.change("PUT", "/rollouts", spec=spec("full"))
    await plane.change("POST", "/rollouts/full/rollback?model=demo")
    assert served(plane).flag.blocked == ("full",)
    await plane.change("POST", "/rollouts/int8/rollback?model=demo")
    found = served(plane)
    assert (found.baseline, found.flag.blocked) == ("full", ("int8",))


async def test_two_graduations_are_taken_back_one_by_one(plane: WholePlane) -> None:
    await promote(plane)
    await graduate(plane)
    await plane.change("PUT", "/rollouts", spec=spec("awq"))
    await promote(plane, key=("demo", "awq"))
    await plane.change("POST", "/rollouts/awq/graduate?model=demo")
    assert served(plane).baseline == "awq"
    await plane.change("PUT", "/rollouts", spec=spec("full"))
    view = (await plane.client.get("/admin/v1/rollouts/full?model=demo")).json()
    assert "awq, itself within tolerance of int8" in view["measured_against"]
    assert "int8, itself within tolerance of full" in view["measured_against"]
    await plane.change("POST", "/rollouts/awq/rollback?model=demo")
    assert (served(plane).baseline, served(plane).flag.blocked) == ("int8", ("awq",))
    await plane.change("POST", "/rollouts/int8/rollback?model=demo")
    assert served(plane).baseline == "full"
    assert {*served(plane).flag.blocked} == {"awq", "int8"}


async def test_a_store_that_forgot_the_rollback_takes_it_back_again(plane: WholePlane) -> None:
    await promote(plane)
    await graduate(plane)
    before = plane.parts.controller.state
    await plane.change("POST", "/rollouts/int8/rollback?model=demo")
    known = Known(1, 99, "", plane.parts.controller.state.restrictions)
    state = before
    for draft in draft_recovery(before, known, "the store went back", NOW):
        state = apply_event(state, Event.of(draft, state.epoch + 1, NOW))
    model_after = state.models["demo"]
    assert (model_after.baseline, model_after.flag.blocked) == ("full", ("int8",))
    assert not [*flag_problems(model_after, model_after.flag)]


async def test_a_store_that_forgot_it_and_has_no_old_baseline_names_no_baseline(
    plane: WholePlane,
) -> None:
    await promote(plane)
    await graduate(plane)
    models = {"demo": {"baseline": "int8", "variants": {"int8": {"url": VARIANTS["int8"].url}}}}
    await plane.change("PUT", "/configuration", models=models)
    before = plane.parts.controller.state
    known = Known(1, 99, "", {"demo": Restriction(blocked=("int8",))})
    state = before
    for draft in draft_recovery(before, known, "the store went back", NOW):
        state = apply_event(state, Event.of(draft, state.epoch + 1, NOW))
    assert state.models["demo"].flag.blocked == ()


async def test_pins_to_the_old_baseline_stay(plane: WholePlane) -> None:
    await promote(plane)
    pin = {"kind": "key", "subject": "u1", "variant": "full"}
    await plane.change("POST", "/flags/demo/pin", **pin)
    assert "kept on full by the pin of u1" in await refused(plane)
    await graduate(plane, accept_unproven=True)
    assert served(plane).flag.pins == (Pin(kind="key", subject="u1", variant="full"),)


async def proposed(plane: WholePlane, variants: list[str], baseline: str) -> Any:
    models = {
        "demo": {
            "baseline": baseline,
            "variants": {name: {"url": VARIANTS[name].url} for name in variants},
        }
    }
    return await plane.change("PUT", "/configuration?dry_run=true", models=models)


async def test_a_plan_says_that_the_old_baseline_is_kept(plane: WholePlane) -> None:
    await promote(plane)
    await graduate(plane)
    plan = await proposed(plane, ["int8", "awq"], "int8")
    told = [step for step in plan["steps"] if "is kept until" in step["text"]]
    assert [step["hurts"] for step in told] == [True]
    assert "full of demo" in told[0]["text"]


async def test_after_that_time_it_is_not(plane: WholePlane) -> None:
    await promote(plane)
    await graduate(plane, keep_days=0)
    plan = await proposed(plane, ["int8", "awq"], "int8")
    assert not [step for step in plan["steps"] if "is kept until" in step["text"]]


async def test_without_the_old_baseline_there_is_no_way_back(plane: WholePlane) -> None:
    await promote(plane)
    await graduate(plane)
    models = {"demo": {"baseline": "int8", "variants": {"int8": {"url": VARIANTS["int8"].url}}}}
    await plane.change("PUT", "/configuration", models=models)
    answer = await plane.client.post(
        "/admin/v1/rollouts/int8/rollback?model=demo", json={"reason": "test"}
    )
    assert answer.status_code == 409
    assert "has no full (demo) any more" in answer.json()["error"]["message"]


async def test_a_file_that_names_the_old_baseline_ends_the_graduation(plane: WholePlane) -> None:
    await promote(plane)
    await graduate(plane)
    models = {
        "demo": {
            "baseline": "full",
            "variants": {name: {"url": found.url} for name, found in VARIANTS.items()},
        }
    }
    await plane.change("PUT", "/configuration", models=models)
    assert plane.parts.controller.state.rollouts[KEY].record.graduated is None
    assert plane.parts.controller.state.rollouts[KEY].stage == "off"


async def test_only_an_admin_may(plane: WholePlane) -> None:
    await promote(plane)
    answer = await plane.client.post(
        "/admin/v1/rollouts/int8/graduate?model=demo",
        json={"reason": "test"},
        headers={"authorization": "Bearer wrong-token-of-nothing"},
    )
    assert answer.status_code == 401
