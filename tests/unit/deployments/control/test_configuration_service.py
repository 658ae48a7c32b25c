"""Proposed configurations: the plan that is shown, what is refused, and what comes into force."""

from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.deployments.rollouts.record import Phase
from tests.support.rollouts import rollout_spec
from tests.support.routing_tables import SLICES, VARIANTS
from tests.support.whole_plane import WholePlane, whole_plane

PATH = "/admin/v1/configuration"
DEMO: dict[str, Any] = {
    "baseline": "full",
    "variants": {name: {"url": f"http://{name}.test"} for name in VARIANTS},
    "slices": [rule.model_dump(mode="json", exclude_defaults=True) for rule in SLICES],
}


def key(tenant: str, letter: str, **more: Any) -> dict[str, Any]:
    return {"tenant": tenant, "sha256": letter * 64, **more}


class Operator:
    """An operator who proposes configurations; `models` is the one in force at first."""

    def __init__(self, plane: WholePlane) -> None:
        self.plane = plane
        self.models = {"demo": deepcopy(DEMO)}

    async def propose(self, **more: Any) -> httpx.Response:
        body = {"models": self.models, "reason": "a test"} | more
        return await self.plane.client.put(PATH, json=body)

    async def apply(self, **more: Any) -> Any:
        answer = await self.propose(**more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, **more: Any) -> str:
        epoch = self.plane.parts.controller.state.epoch
        answer = await self.propose(**more)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["code"] == "configuration_refused"
        assert self.plane.parts.controller.state.epoch == epoch
        return str(answer.json()["error"]["message"])


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    async with whole_plane(tmp_path) as plane:
        yield Operator(plane)


def texts(answer: Any, *actions: str) -> list[str]:
    return [step["text"] for step in answer["steps"] if step["action"] in actions]


def hurting(answer: Any) -> list[str]:
    return [step["text"] for step in answer["steps"] if step["hurts"]]


async def test_what_is_in_force_already_is_no_change_and_says_so(operator: Operator) -> None:
    answer = await operator.apply()
    assert (answer["changed"], answer["steps"], answer["epoch"]) == (False, [], 1)


async def test_a_dry_run_tells_the_plan_and_changes_nothing(operator: Operator) -> None:
    operator.models["demo"]["variants"]["int2"] = {"url": "http://int2.test"}
    operator.models["other"] = DEMO
    answer = await operator.apply(dry_run=True, keys=[key("acme", "a")])
    assert not answer["changed"]
    assert operator.plane.parts.controller.state.epoch == 1
    assert texts(answer, "add") == [
        "variant int2 of demo, at http://int2.test; it has no share yet",
        "model other: baseline full, variants full, int8, int4, int3",
    ]
    assert hurting(answer) == [
        "keys: so far each gateway has those of its file; from now on, everywhere: aaaaaaaaaaaa of"
        " acme"
    ]


async def test_a_proposal_comes_into_force_at_every_gateway_as_one_epoch(
    operator: Operator,
) -> None:
    gateways = [await operator.plane.connect(f"g{n}", processes=2) for n in range(2)]
    operator.models["demo"]["variants"]["int2"] = {"url": "http://int2.test"}
    answer = await operator.apply(keys=[key("acme", "a"), key("globex", "b")])
    assert (answer["epoch"], answer["gateways"]) == (2, {"connected": 2, "acknowledged": 2})
    for gateway in gateways:
        table = gateway.tables[-1]
        assert table.models["demo"].variants["int2"].url == "http://int2.test"
        assert table.keys is not None
        assert [key.tenant for key in table.keys] == ["acme", "globex"]
    event = (await operator.plane.client.get("/admin/v1/history")).json()["items"][-1]
    assert (event["kind"], event["reason"], event["actor"]) == ("config", "a test", "admin")


async def test_keys_and_limits_are_planned_one_by_one(operator: Operator) -> None:
    await operator.apply(keys=[key("acme", "a", limits={"concurrency": 8}), key("old", "b")])
    keys = [key("acme", "a", may_pin=True, limits={"concurrency": 4}), key("new", "c")]
    answer = await operator.apply(keys=keys)
    assert [(step["action"], step["text"], step["hurts"]) for step in answer["steps"]] == [
        ("remove", "key bbbbbbbbbbbb of old: its requests are refused", True),
        ("change", "key aaaaaaaaaaaa of acme: it may choose its variant", False),
        ("add", "key cccccccccccc of new", False),
        ("change", "limit concurrency of acme: 8 -> 4", True),
    ]
    view = (await operator.plane.client.get(PATH)).json()
    assert [found["key_id"] for found in view["keys"]] == ["a" * 12, "c" * 12]
    assert "a" * 13 not in str(view)


async def test_a_proposal_without_keys_leaves_them(operator: Operator) -> None:
    await operator.apply(keys=[key("acme", "a")])
    operator.models["demo"]["sticky_headers"] = ["x-user"]
    answer = await operator.apply()
    assert texts(answer, "note") == ["keys: the proposal says nothing of them, those in force stay"]
    keys = operator.plane.parts.controller.state.keys
    assert keys is not None
    assert len(keys) == 1


async def test_a_limit_that_the_gateways_cannot_share_is_refused(operator: Operator) -> None:
    await operator.plane.connect("g", processes=4)
    text = await operator.refused(keys=[key("acme", "a", limits={"concurrency": 3})])
    assert "keys[0].limits.concurrency: found 3 with 4 gateway processes" in text


async def test_the_last_key_of_a_gateway_beyond_its_machine_stays(operator: Operator) -> None:
    await operator.plane.connect("g", "h1", processes=1, needs_keys=True)
    text = await operator.refused(keys=[])
    assert text.startswith("keys: found none, wanted at least one: the gateway g on h1 listens")


async def revoke(operator: Operator, name: str) -> httpx.Response:
    path = f"{PATH}/keys/{name}/revoke"
    return await operator.plane.client.post(path, json={"reason": "it leaked"})


async def test_a_key_is_revoked_whatever_a_file_says(operator: Operator) -> None:
    await operator.apply(keys=[key("acme", "a"), key("acme", "b")])
    gateway = await operator.plane.connect("gateway-0", processes=1)
    before = operator.plane.parts.controller.state
    answer = await revoke(operator, "b" * 12)
    assert answer.status_code == 200, answer.text
    assert answer.json()["gateways"] == {"connected": 1, "acknowledged": 1}
    keys = gateway.tables[-1].keys
    assert keys is not None
    assert [each.sha256[0] for each in keys] == ["a"]
    after = operator.plane.parts.controller.state
    assert (after.models, after.rollouts) == (before.models, before.rollouts)


async def test_revoking_what_is_not_there_or_the_last_one_is_refused(operator: Operator) -> None:
    answer = await revoke(operator, "b" * 12)
    assert (answer.status_code, "has those of its own file" in answer.text) == (409, True)
    await operator.apply(keys=[key("acme", "a")])
    answer = await revoke(operator, "b" * 12)
    assert (answer.status_code, "a" * 12 in answer.text) == (404, True)
    answer = await revoke(operator, "a" * 12)
    assert (answer.status_code, "is the only key" in answer.text) == (409, True)


async def test_keys_are_not_changed_where_a_gateway_would_not_take_them(
    operator: Operator,
) -> None:
    await operator.plane.connect("old", "h1")
    text = await operator.refused(keys=[key("acme", "a")])
    assert "the gateway old on h1 is of a release that takes keys from its file only" in text
    operator.models["demo"]["sticky_headers"] = ["x-user"]
    assert (await operator.apply())["changed"]


async def test_a_variant_that_the_flag_refers_to_does_not_go_away(operator: Operator) -> None:
    await operator.plane.change("POST", "/flags/demo/split", split={"int8": 30})
    await operator.plane.change(
        "POST", "/flags/demo/pin", kind="tenant", subject="acme", variant="int8"
    )
    del operator.models["demo"]["variants"]["int8"]
    text = await operator.refused()
    assert 'pins[0].variant: found "int8"' in text
    assert 'split: found "int8"' in text


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"baseline": "nosuch"}, 'models.demo.baseline: found "nosuch", wanted one of full'),
        ({"variants": {"full": {"url": "nowhere"}}}, "models.demo.variants.full.url: found"),
        ({"extra": 1}, "models.demo.extra: found an unknown key, wanted one of baseline"),
        (
            {"variants": {"full": {"url": "http://a"}, "int8": {"url": "http://a/"}}},
            "another server than that of full",
        ),
    ],
)
async def test_it_is_held_to_what_a_file_is_held_to(
    operator: Operator, change: dict[str, Any], found: str
) -> None:
    operator.models["demo"] |= change
    assert found in await operator.refused()


async def test_a_rollout_whose_candidate_goes_away_ends_and_the_plan_says_so(
    operator: Operator,
) -> None:
    await operator.plane.apply(rollout_spec().model_dump(mode="json"))
    del operator.models["demo"]["variants"]["int8"]
    plan = await operator.apply(dry_run=True)
    effect = "rollout of int8 (demo, shadow): the configuration has no candidate int8 any more"
    assert hurting(plan) == [effect]
    await operator.apply()
    [rollout] = operator.plane.parts.controller.state.rollouts.values()
    assert rollout.record.phase is Phase.OFF


async def test_other_slices_begin_a_rollouts_evidence_anew(operator: Operator) -> None:
    run = await operator.plane.apply(rollout_spec().model_dump(mode="json"))
    operator.models["demo"]["slices"] = []
    answer = await operator.apply()
    assert texts(answer, "effect") == [
        "rollout of int8 (demo, shadow): evidence begins anew: the model's slices or baseline"
        " changed"
    ]
    [rollout] = operator.plane.parts.controller.state.rollouts.values()
    assert rollout.record.run != run
    shown = await operator.plane.client.get("/admin/v1/rollouts/int8?model=demo")
    assert shown.status_code == 200


async def test_the_second_of_two_operators_learns_what_the_first_has_done(
    operator: Operator,
) -> None:
    first = await operator.apply(dry_run=True)
    await operator.apply(keys=[key("acme", "a")], reason="acme begins")
    operator.models["demo"]["sticky_headers"] = ["x-user"]
    late = await operator.propose(expected_epoch=first["epoch"])
    assert late.status_code == 409
    assert late.json()["error"]["message"].startswith(
        "the configuration was changed in epoch 2 by admin (acme begins), after epoch 1"
    )
    assert (await operator.apply(expected_epoch=2))["changed"]


async def test_a_flag_that_was_changed_meanwhile_is_a_conflict_for_its_model_only(
    operator: Operator,
) -> None:
    operator.models["other"] = DEMO
    await operator.apply()
    await operator.plane.change("POST", "/flags/demo/kill")
    operator.models["other"] = {**DEMO, "sticky_headers": ["x-user"]}
    assert (await operator.apply(expected_epoch=2))["changed"]
    operator.models["demo"]["sticky_headers"] = ["x-user"]
    late = await operator.propose(expected_epoch=2)
    assert "the flag of demo was changed in epoch 3 by admin (test)" in late.text


async def test_an_engine_that_runs_here_gets_its_address(operator: Operator) -> None:
    operator.models["demo"]["variants"]["hosted"] = {"engine": {"source": "/models/x"}}
    await operator.apply()
    model = operator.plane.parts.controller.state.models["demo"]
    assert model.variants["hosted"].url == "http://127.0.0.1:8000/demo-hosted"


async def test_an_engine_that_does_not_run_is_refused_with_what_could_be_applied(
    operator: Operator,
) -> None:
    operator.models["demo"]["variants"]["int2"] = {"engine": {"source": "/models/x"}}
    operator.models["demo"]["variants"]["int1"] = {"url": "http://int1.test"}
    lines = (await operator.refused()).splitlines()
    assert lines[0].startswith("models.demo.variants.int2: found an engine that does not run here")
    assert lines[1:] == [
        "Without that, this could be applied at once:",
        "  add variant int1 of demo, at http://int1.test; it has no share yet",
    ]


async def test_local_settings_are_told_and_left_for_the_next_start(operator: Operator) -> None:
    answer = await operator.apply(dry_run=True, local={"gateway.port": 9999})
    later = texts(answer, "later")
    assert "gateway.port: 8080 -> 9999" in later
    assert not (await operator.apply(local={"gateway.port": 9999}))["changed"]


async def test_the_file_of_a_model_that_has_a_flag_does_not_change_it(operator: Operator) -> None:
    await operator.plane.change("POST", "/flags/demo/split", split={"int8": 30})
    operator.models["demo"]["flag"] = {"split": {"int8": 99}}
    answer = await operator.apply()
    assert not answer["changed"]
    assert texts(answer, "note")[0].startswith("flag of demo: the proposal's is for a new model")
    assert operator.plane.parts.controller.state.flags["demo"].split == {"int8": 30}


async def test_no_share_moves_when_a_variant_is_added_in_front(operator: Operator) -> None:
    variants = {"full": DEMO["variants"]["full"], "first": {"url": "http://first.test"}}
    operator.models["demo"]["variants"] = variants | DEMO["variants"]
    await operator.apply()
    places = operator.plane.parts.controller.state.models["demo"].places
    assert {name: places[name] for name in ("int8", "int4", "int3")} == {
        "int8": 0,
        "int4": 1,
        "int3": 2,
    }


async def test_status_and_history_tell_of_keys_and_of_gateways_that_take_none(
    operator: Operator,
) -> None:
    await operator.apply(keys=[key("acme", "a")])
    history = (await operator.plane.client.get("/admin/v1/history")).json()["items"]
    assert [item["keys"] for item in history] == [None, ["aaaaaaaaaaaa of acme"]]
    await operator.plane.connect("new", processes=1)
    status = (await operator.plane.client.get("/admin/v1/status")).json()
    assert (status["health"], status["problems"]) == ("healthy", [])
    await operator.plane.connect("old")
    status = (await operator.plane.client.get("/admin/v1/status")).json()
    assert status["health"] == "degraded"
    assert status["problems"][0].startswith("old: it is of a release that takes keys from its file")


async def test_a_plan_of_a_store_that_went_back_is_a_conflict(operator: Operator) -> None:
    operator.models["more"] = deepcopy(DEMO)
    epoch = operator.plane.parts.controller.state.epoch
    answer = await operator.propose(expected_epoch=epoch + 5)
    assert answer.status_code == 409
    assert "went back" in answer.json()["error"]["message"]
    assert operator.plane.parts.controller.state.epoch == epoch


async def test_only_the_leader_plans(operator: Operator) -> None:
    operator.plane.parts.controller.standing.leader_address = "http://other"
    answer = await operator.propose(dry_run=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_leader")
    operator.plane.parts.controller.standing.leader_address = None
