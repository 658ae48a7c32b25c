"""Engines of a proposed configuration: what is started, put into service, replaced and stopped."""

import json
from collections.abc import AsyncIterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from penumbra.deployments.config.hosted_engines import (
    IN_FORCE,
    STATUS,
    EnginesInForce,
    EnginesStatus,
    EngineStatus,
    HostedEngine,
    read_file,
    write_file,
)
from penumbra.deployments.config.hosted_here import HostedHere
from penumbra.deployments.control.configuration_service import ConfigurationService, Proposal
from penumbra.deployments.control.engine_director import MOST_LEAVE_SECONDS, EngineDirector
from penumbra.deployments.errors import ConfigurationRefused
from penumbra.deployments.history.events import Event
from penumbra.deployments.history.state import EMPTY, fold
from penumbra.deployments.rollouts.record import Phase
from penumbra.router.flags.routing_table import Snapshot
from tests.support.rollouts import rollout_spec
from tests.support.routing_tables import SLICES, VARIANTS
from tests.support.whole_plane import WholePlane, whole_plane

PATH = "/admin/v1/configuration"
DEMO: dict[str, Any] = {
    "baseline": "full",
    "variants": {name: {"url": f"http://{name}.test"} for name in VARIANTS},
    "slices": [rule.model_dump(mode="json", exclude_defaults=True) for rule in SLICES],
}


def spec_of(candidate: str) -> dict[str, Any]:
    return rollout_spec(candidate=candidate).model_dump(mode="json")


class Host:
    """A control process beside a `penumbra up` of which the test plays the part."""

    def __init__(self, plane: WholePlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.now = 0.0
        self.models: dict[str, Any] = {"demo": deepcopy(DEMO)}
        parts = plane.parts
        spec = plane.spec
        self.director = EngineDirector(
            parts.controller,
            parts.rollouts,
            parts.gateways,
            HostedHere(spec, {}, folder),
            lambda: self.now,
        )

    def weights(self, name: str) -> str:
        """A folder that looks like a model's."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        return str(folder)

    def add(self, variant: str, **engine: Any) -> None:
        """Add a hosted variant to the file."""
        engine = {"source": self.weights(variant), **engine}
        self.models["demo"]["variants"][variant] = {"engine": engine}

    async def propose(self, **more: Any) -> httpx.Response:
        body = {"models": self.models, "reason": "a test"} | more
        return await self.plane.client.put(PATH, json=body)

    async def apply(self, **more: Any) -> list[tuple[str, str, bool]]:
        answer = await self.propose(**more)
        assert answer.status_code == 200, answer.text
        return [(each["action"], each["text"], each["hurts"]) for each in answer.json()["steps"]]

    async def look(self, seconds: float = 0.0) -> list[HostedEngine]:
        """Let the time pass; returns the engines that are to run."""
        self.now += seconds
        await self.director.look(self.folder)
        told = read_file(self.folder / IN_FORCE, EnginesInForce)
        assert told is not None
        return list(told.engines)

    async def answers(self, *engines: HostedEngine) -> None:
        """Tell that engines answer."""
        states = (
            EngineStatus(
                model=each.model, variant=each.variant, definition=each.definition, phase="ready"
            )
            for each in engines
        )
        write_file(self.folder / STATUS, EnginesStatus(cores=8, engines=tuple(states)))
        await self.look()

    @property
    def table(self) -> Snapshot:
        return self.plane.parts.gateways.snapshot


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    folder = tmp_path / "state"
    folder.mkdir()
    async with whole_plane(tmp_path, hosting=folder) as plane:
        yield Host(plane, folder)


async def test_an_added_engine_is_started_and_answers_for_no_one_before_it_is_ready(
    host: Host,
) -> None:
    host.add("int2")
    steps = await host.apply()
    source = host.weights("int2")
    assert steps == [
        ("add", "variant int2 of demo, at http://127.0.0.1:8000/demo-int2; it has no share yet",
         False),
        ("add", f"starts the engine of int2 (demo) from {source}; until it is ready, the baseline"
         " answers in its place", False),
    ]  # fmt: skip
    assert host.table.models["demo"].flag.blocked == ("int2",)
    [engine] = await host.look()
    assert (engine.model, engine.variant, engine.engine.source) == ("demo", "int2", source)
    await host.look(60.0)
    assert host.table.models["demo"].flag.blocked == ("int2",)
    await host.answers(engine)
    assert host.table.models["demo"].flag.blocked == ()
    assert host.plane.parts.controller.state.flags["demo"].blocked == ()


async def test_a_rollout_of_a_starting_engine_is_not_watched_and_goes_no_further(
    host: Host,
) -> None:
    host.add("int2")
    await host.apply()
    await host.plane.apply(spec_of("int2"))
    assert host.table.models["demo"].watches == ()
    assert host.table.models["demo"].flag.blocked == ("int2",)
    view = await host.plane.client.get("/admin/v1/rollouts/int2?model=demo")
    assert "the engine of int2 is starting" in view.text
    [engine] = await host.look()
    await host.answers(engine)
    assert [watch.candidate for watch in host.table.models["demo"].watches] == ["int2"]


async def test_another_engine_begins_the_evidence_of_its_rollout_anew(host: Host) -> None:
    host.add("int2")
    await host.apply()
    [engine] = await host.look()
    await host.answers(engine)
    run = await host.plane.apply(spec_of("int2"))
    host.add("int2", dtype="float32", engine_args={"max_model_len": 64})
    steps = await host.apply()
    assert [text for _, text, _ in steps] == [
        'stops the engine of int2 (demo) and starts it again: dtype default -> "float32",'
        " engine_args.max_model_len default -> 64; until it is ready, the baseline answers in its"
        " place",
        "rollout of int2 (demo, shadow): evidence begins anew: the engine of int2 changed",
    ]
    [hurting] = [text for _, text, hurts in steps if hurts]
    assert hurting.startswith("rollout of int2")
    rollout = host.plane.parts.controller.state.rollouts["demo", "int2"]
    assert rollout.record.phase is Phase.SHADOW
    assert rollout.record.run != run
    await host.answers(engine)  # what answers is still the engine as it was
    assert host.table.models["demo"].flag.blocked == ("int2",)


async def test_the_baselines_engine_is_replaced_only_by_a_plan_that_hurts(host: Host) -> None:
    variants = host.models["demo"]["variants"]
    variants["full"] = {"engine": {"source": host.weights("full")}}
    await host.apply()
    variants["full"] = {"engine": {"source": host.weights("full"), "dtype": "float32"}}
    [(action, text, hurts)] = await host.apply(dry_run=True)
    assert (action, hurts) == ("change", True)
    assert text.endswith("until it is ready, requests to demo fail")


async def test_more_replicas_of_a_build_are_no_other_build(host: Host) -> None:
    host.add("int2")
    await host.apply()
    [engine] = await host.look()
    await host.answers(engine)
    host.add("int2", replicas=2)
    assert await host.apply() == [
        ("change", "scales the engine of int2 (demo): replicas default -> 2", False)
    ]
    assert host.table.models["demo"].flag.blocked == ()


async def test_an_engine_ends_only_after_every_gateway_has_the_table_without_it(
    host: Host,
) -> None:
    host.add("int2")
    await host.apply()
    [engine] = await host.look()
    gateway = await host.plane.connect("g")
    gateway._answers = False
    del host.models["demo"]["variants"]["int2"]
    steps = await host.apply()
    stop = "stops the engine of int2 (demo), once no gateway uses it any more"
    assert ("remove", stop, False) in steps
    assert await host.look() == [engine]
    assert await host.look(MOST_LEAVE_SECONDS / 2) == [engine]
    assert await host.look(MOST_LEAVE_SECONDS / 2) == []


async def test_an_engine_ends_soon_where_all_gateways_have_the_table_without_it(
    host: Host,
) -> None:
    host.add("int2")
    await host.apply()
    await host.look()
    await host.plane.connect("g")
    del host.models["demo"]["variants"]["int2"]
    await host.apply()
    await host.look()
    assert await host.look(2.0) == []


async def test_what_is_in_force_is_told_anew_to_an_up_that_lost_the_file(host: Host) -> None:
    host.add("int2")
    await host.apply()
    [engine] = await host.look()
    (host.folder / IN_FORCE).unlink()
    assert await host.look() == [engine]


@pytest.mark.parametrize(
    ("engine", "problem"),
    [
        ({"source": "/nowhere"}, "source: found no folder /nowhere"),
        ({"autoscaling": {"min": 0, "max": 1}}, "autoscaling.min: found 0, wanted 1 or more"),
        ({"cpus": 9.0}, "models.*.variants.*.engine.cpus: found 9 in all"),
    ],
)
async def test_an_engine_that_cannot_be_placed_is_refused_with_what_could_be_applied(
    host: Host, engine: dict[str, Any], problem: str
) -> None:
    write_file(host.folder / STATUS, EnginesStatus(cores=8))
    host.models["demo"]["variants"]["int1"] = {"url": "http://int1.test"}
    host.add("int2", **engine)
    answer = await host.propose()
    assert answer.status_code == 422
    text = answer.json()["error"]["message"]
    assert problem in text
    assert "add variant int1 of demo" in text
    assert host.plane.parts.controller.state.engines is None


async def test_engines_are_read_again_from_the_store(host: Host) -> None:
    host.add("int2")
    await host.apply()
    state = host.plane.parts.controller.state
    events = await host.plane.parts.controller.read(lambda store: store.stored())
    assert fold((each for each in events if isinstance(each, Event)), EMPTY) == state
    assert state.starting == {("demo", "int2")}


async def test_an_engines_environment_is_shown_nowhere(host: Host) -> None:
    host.add("int2", env={"TOKEN": "s3cret"})
    plan = await host.propose(dry_run=True)
    await host.apply()
    host.add("int2", env={"TOKEN": "another"})
    changed = await host.propose(dry_run=True, local={"x": 1})
    view = await host.plane.client.get(PATH)
    history = await host.plane.client.get("/admin/v1/history")
    for answer in (plan, changed, view, history):
        assert "s3cret" not in answer.text
        assert "another" not in json.dumps(answer.json())


async def test_a_control_process_that_runs_alone_changes_no_engine_and_takes_some_away(
    host: Host,
) -> None:
    host.add("int2")
    host.add("int1")
    await host.apply()
    parts = host.plane.parts
    spec = host.plane.spec
    alone = ConfigurationService(
        parts.controller, parts.rollouts, parts.gateways, spec, HostedHere(spec, {}), _now
    )

    async def propose() -> None:
        await alone.propose(Proposal(host.models, None, "ann", "a test"))

    host.add("int2", dtype="float32")
    with pytest.raises(ConfigurationRefused, match="engines are changed where `penumbra up` runs"):
        await propose()
    host.add("int2")
    host.add("int0")
    with pytest.raises(ConfigurationRefused, match="engines are started where `penumbra up` runs"):
        await propose()
    del host.models["demo"]["variants"]["int0"]
    del host.models["demo"]["variants"]["int1"]
    await propose()
    assert parts.controller.state.engines == {"demo": {"int2": {"source": host.weights("int2")}}}
    assert parts.controller.state.starting == {("demo", "int2")}


def _now() -> datetime:
    return datetime.now(UTC)
