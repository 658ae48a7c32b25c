"""The fleet process's supervision from loading to ready; the fleet here is a script."""

import asyncio
import sys
from pathlib import Path

import pytest

from penumbra.deployments.config.spec import EngineSpec
from penumbra.serve.errors import ProcessFailed, VariantFailed, WarmUpFailed
from penumbra.serve.hosting.plan import FleetPlan, host_variant
from penumbra.serve.supervisor import fleet_process
from penumbra.serve.supervisor.fleet_process import FleetProcess
from penumbra.serve.supervisor.process import Program
from penumbra.serve.supervisor.state import Phase, VariantRecord

EVENT = '{{"app":"demo-{0}","state":"{1}","replicas":{2},"message":"{3}"}}'
WAIT = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"


def event(variant: str, state: str, replicas: int = 0, message: str = "") -> str:
    return EVENT.format(variant, state, replicas, message)


class Fleet:
    """A supervised fleet whose program is a script that prints events."""

    def __init__(
        self, events: list[str], folder: Path, then: str = WAIT, startup_seconds: float = 60
    ) -> None:
        self.phases: list[tuple[str, Phase]] = []
        self.changed = asyncio.Event()
        names = ("full", "int8")
        engines = {
            "full": EngineSpec(source=str(folder), startup_seconds=60),
            "int8": EngineSpec(source=str(folder), startup_seconds=startup_seconds),
        }
        plan = FleetPlan(
            variants=tuple(host_variant("demo", name, engines[name], log=None) for name in names),
            port=8000,
            folder="/x",
        )
        self.records = {
            f"demo-{name}": VariantRecord(
                model="demo",
                variant=name,
                url=f"http://x/demo-{name}",
                is_hosted=True,
                phase=Phase.WAITING,
                log=str(folder / f"{name}.log"),
            )
            for name in names
        }
        lines = "".join(f"print({line!r}, flush=True)\n" for line in events)
        program = Program(
            name="fleet",
            command=(sys.executable, "-c", lines + then),
            environment={},
            log=folder / "fleet.log",
        )
        self.process = FleetProcess(
            program, plan, self.records, self._on_change, sweep=lambda: None
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
    known = running.replace('"message"', '"addresses":{"0":"h:1"},"message"')
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
