"""The fleet process's supervision from loading to ready; the fleet here is a script."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from penumbra.deployments.config.hosted_engines import HostedEngine
from penumbra.deployments.config.spec import EngineSpec
from penumbra.serve.errors import ProcessFailed, VariantFailed, WarmUpFailed
from penumbra.serve.hosting.plan import FleetPlan, host_variant
from penumbra.serve.supervisor import fleet_process
from penumbra.serve.supervisor.fleet_process import FleetProcess
from penumbra.serve.supervisor.process import Program
from penumbra.serve.supervisor.state import Phase, VariantRecord

WAIT = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"


def engine(variant: str, **more: Any) -> HostedEngine:
    found = EngineSpec(source="/weights", **more)
    return HostedEngine(model="demo", variant=variant, is_baseline=False, engine=found)


def event(
    variant: str, state: str, replicas: int = 0, message: str = "", definition: str = "as asked"
) -> str:
    return json.dumps(
        {
            "app": f"demo-{variant}",
            "definition": definition,
            "state": state,
            "replicas": replicas,
            "message": message,
        }
    )


def record(variant: str, folder: Path) -> VariantRecord:
    return VariantRecord(
        model="demo",
        variant=variant,
        url=f"http://x/demo-{variant}",
        is_hosted=True,
        phase=Phase.WAITING,
        log=str(folder / f"{variant}.log"),
    )


def plan_of(*engines: HostedEngine, definition: str = "as asked") -> FleetPlan:
    variants = (host_variant(each, log=None) for each in engines)
    return FleetPlan(
        variants=tuple(each.model_copy(update={"definition": definition}) for each in variants),
        port=8000,
        folder="/x",
    )


class Fleet:
    """A supervised fleet whose program is a script that prints events."""

    def __init__(
        self,
        events: list[str],
        folder: Path,
        then: str = WAIT,
        startup_seconds: float = 60,
        required: Any = None,
    ) -> None:
        self.phases: list[tuple[str, Phase]] = []
        self.changed = asyncio.Event()
        names = ("full", "int8")
        self.plan = plan_of(
            engine("full", startup_seconds=60), engine("int8", startup_seconds=startup_seconds)
        )
        self.records = {f"demo-{name}": record(name, folder) for name in names}
        lines = "".join(f"print({line!r}, flush=True)\n" for line in events)
        program = Program(
            name="fleet",
            command=(sys.executable, "-c", lines + then, str(folder / "fleet.json")),
            environment={},
            log=folder / "fleet.log",
        )
        self.process = FleetProcess(
            program, self.plan, self.records, self._on_change, sweep=lambda: None, required=required
        )

    def phase(self, variant: str) -> Phase:
        return self.records[f"demo-{variant}"].phase

    def _on_change(self) -> None:
        self.changed.set()


def causes(failure: BaseException) -> list[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        return [cause for inner in failure.exceptions for cause in causes(inner)]
    return [failure]


@pytest.fixture(autouse=True)
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    urls: list[str] = []

    async def warm_up(url: str, _model: str, _replicas: int) -> None:
        urls.append(url)

    monkeypatch.setattr(fleet_process, "warm_up", warm_up)
    return urls


async def test_ready_when_every_variant_is_warm(tmp_path: Path, warmed: list[str]) -> None:
    fleet = Fleet([event("full", "running", 1), event("int8", "running", 1)], tmp_path)
    task = asyncio.create_task(fleet.process.run())
    await fleet.process.is_ready.wait()
    assert (fleet.phase("full"), fleet.phase("int8")) == (Phase.READY, Phase.READY)
    assert sorted(warmed) == ["http://x/demo-full", "http://x/demo-int8"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await fleet.process.stop()


async def test_addresses_of_replicas_are_kept_and_alone_are_no_reason_to_warm_up(
    tmp_path: Path, warmed: list[str]
) -> None:
    running = event("full", "running", 1)
    known = running.replace('"message"', '"addresses": {"0": "h:1"}, "message"')
    fleet = Fleet([running, known, event("int8", "running", 1)], tmp_path)
    task = asyncio.create_task(fleet.process.run())
    await fleet.process.is_ready.wait()
    assert fleet.records["demo-full"].addresses == {"0": "h:1"}
    assert sorted(warmed) == ["http://x/demo-full", "http://x/demo-int8"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await fleet.process.stop()


async def test_engine_that_cannot_load_fails_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "int8.log").write_text("line one\nno such kernel\n")
    events = [event("full", "running", 1), event("int8", "failed", 0, "constructor raised")]
    fleet = Fleet(events, tmp_path)
    with pytest.raises(BaseExceptionGroup) as group:
        await fleet.process.run()
    await fleet.process.stop()
    (failure,) = causes(group.value)
    assert isinstance(failure, VariantFailed)
    assert "models.demo.variants.int8 could not be loaded: constructor raised" in failure.message
    assert failure.log_tail == "line one\nno such kernel"


async def test_engine_that_does_not_answer_as_it_must_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def warm_up(_url: str, _model: str, _replicas: int) -> None:
        raise WarmUpFailed("scored 0 of 3 tokens")

    monkeypatch.setattr(fleet_process, "warm_up", warm_up)
    fleet = Fleet([event("full", "running", 1)], tmp_path)
    with pytest.raises(BaseExceptionGroup) as group:
        await fleet.process.run()
    await fleet.process.stop()
    assert "scored 0 of 3 tokens" in str(causes(group.value)[0])


async def test_engine_that_takes_too_long_fails(tmp_path: Path) -> None:
    fleet = Fleet([event("full", "running", 1)], tmp_path, startup_seconds=0.5)
    with pytest.raises(BaseExceptionGroup) as group:
        await fleet.process.run()
    await fleet.process.stop()
    assert "variants.int8 was not ready after" in str(causes(group.value)[0])


async def test_fleet_that_ends_before_it_is_ready_fails_with_its_log(tmp_path: Path) -> None:
    fleet = Fleet([], tmp_path, then="import sys; sys.exit('no room')")
    with pytest.raises(ProcessFailed) as failure:
        await fleet.process.run()
    assert failure.value.log_tail == "no room"


async def test_variant_that_is_lost_later_is_restarting_and_ready_again(
    tmp_path: Path, warmed: list[str]
) -> None:
    events = [
        event("full", "running", 1),
        event("int8", "running", 1),
        event("int8", "unhealthy", 0, "replica died"),
    ]
    then = (
        f"import sys; sys.stdin.read(); print({event('int8', 'running', 1)!r}, flush=True); {WAIT}"
    )
    seen: list[Phase] = []
    fleet = Fleet(events, tmp_path, then=then.replace("sys.stdin.read(); ", ""))
    original = fleet._on_change
    fleet.process._on_change = lambda: (seen.append(fleet.phase("int8")), original())[1]
    task = asyncio.create_task(fleet.process.run())
    while not (Phase.RESTARTING in seen and fleet.phase("int8") is Phase.READY):
        fleet.changed.clear()
        await fleet.changed.wait()
    assert seen.index(Phase.RESTARTING) < len(seen) - 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await fleet.process.stop()


ECHO = (
    "import pathlib, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    "events = pathlib.Path(sys.argv[1] + '.events')\n"
    "shown = 0\n"
    "while True:\n"
    "    lines = events.read_text().splitlines() if events.exists() else []\n"
    "    for line in lines[shown:]: print(line, flush=True)\n"
    "    shown = len(lines)\n"
    "    time.sleep(0.01)\n"
)
"""A fleet that prints the events that a test writes into a file."""


class Told:
    """A fleet that runs, with `full` and `int8` ready, and is told of more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = Fleet(
            [event("full", "running", 1), event("int8", "running", 1)], folder, then=ECHO
        )
        self.process = self.fleet.process
        self.records = self.fleet.records

    async def __aenter__(self) -> "Told":
        self._task = asyncio.create_task(self.process.run())
        await self.process.is_ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.process.stop()

    def tell(self, *events: str) -> None:
        with (self.folder / "fleet.json.events").open("a") as file:
            file.writelines(f"{line}\n" for line in events)

    async def until(self, variant: str, phase: Phase) -> None:
        async with asyncio.timeout(20):
            while f"demo-{variant}" not in self.records or self.fleet.phase(variant) is not phase:
                self.fleet.changed.clear()
                await self.fleet.changed.wait()


async def test_a_variant_that_is_added_is_warmed_up_and_the_others_stay(
    tmp_path: Path, warmed: list[str]
) -> None:
    async with Told(tmp_path) as told:
        engines = engine("full", startup_seconds=60), engine("int8", startup_seconds=60)
        plan = plan_of(*engines, engine("int4"))
        await told.process.follow(plan, {"demo-int4": record("int4", tmp_path)})
        assert FleetPlan.model_validate_json((tmp_path / "fleet.json").read_bytes()) == plan
        assert told.fleet.phase("int4") is Phase.LOADING
        assert told.fleet.phase("full") is Phase.READY
        told.tell(event("int4", "running", 1))
        await told.until("int4", Phase.READY)
        assert warmed.count("http://x/demo-int4") == 1
        assert warmed.count("http://x/demo-full") == 1


async def test_what_is_said_of_an_engine_as_it_was_before_a_change_does_not_count(
    tmp_path: Path,
) -> None:
    async with Told(tmp_path) as told:
        plan = plan_of(
            engine("full", startup_seconds=60), engine("int8", dtype="float32"), definition="other"
        )
        records = {f"demo-{name}": record(name, tmp_path) for name in ("full", "int8")}
        await told.process.follow(plan, records)
        told.tell(
            event("int8", "running", 1, definition="as asked"),
            event("full", "running", 1, definition="other"),
        )
        await told.until("full", Phase.READY)
        assert told.fleet.phase("int8") is Phase.LOADING


async def test_an_added_variant_that_cannot_load_fails_alone(tmp_path: Path) -> None:
    async with Told(tmp_path) as told:
        engines = engine("full", startup_seconds=60), engine("int8", startup_seconds=60)
        plan = plan_of(*engines, engine("int4"), engine("int3", startup_seconds=0.2))
        more = {f"demo-{name}": record(name, tmp_path) for name in ("int4", "int3")}
        await told.process.follow(plan, more)
        told.tell(event("int4", "failed", 0, "no such kernel"))
        await told.until("int4", Phase.FAILED)
        await told.until("int3", Phase.FAILED)
        assert told.records["demo-int4"].message == "no such kernel"
        assert told.records["demo-int3"].message == "was not ready after 0 s (startup_seconds)"
        assert told.fleet.phase("full") is Phase.READY


async def test_a_variant_that_is_taken_out_has_no_record_any_more(tmp_path: Path) -> None:
    async with Told(tmp_path) as told:
        await told.process.follow(plan_of(engine("full", startup_seconds=60)), {})
        told.tell(event("int8", "unhealthy", 0), event("full", "unhealthy", 0))
        await told.until("full", Phase.RESTARTING)
        assert [*told.records] == ["demo-full"]


async def test_a_candidate_that_is_in_force_and_cannot_load_keeps_nothing_from_starting(
    tmp_path: Path,
) -> None:
    events = [event("full", "running", 1), event("int8", "failed", 0, "constructor raised")]
    fleet = Fleet(events, tmp_path, required={"demo-full"})
    task = asyncio.create_task(fleet.process.run())
    await fleet.process.is_ready.wait()
    assert (fleet.phase("full"), fleet.phase("int8")) == (Phase.READY, Phase.FAILED)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await fleet.process.stop()


async def test_a_fleet_without_variants_starts_with_the_first_one(tmp_path: Path) -> None:
    program = Program(
        name="fleet",
        command=(sys.executable, "-c", ECHO, str(tmp_path / "fleet.json")),
        environment={},
        log=tmp_path / "fleet.log",
    )
    records: dict[str, VariantRecord] = {}
    changed = asyncio.Event()
    process = FleetProcess(program, plan_of(), records, changed.set, sweep=lambda: None)
    task = asyncio.create_task(process.run())
    await asyncio.sleep(0)
    assert process.is_ready.is_set()
    assert process.record is None
    await process.follow(plan_of(engine("full")), {"demo-full": record("full", tmp_path)})
    (tmp_path / "fleet.json.events").write_text(event("full", "running", 1) + "\n")
    async with asyncio.timeout(20):
        while records["demo-full"].phase is not Phase.READY:
            changed.clear()
            await changed.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await process.stop()
