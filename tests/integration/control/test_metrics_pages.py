"""Discovery and the aggregated metrics page over real processes, alive and lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penumbra.deployments.config.replica_addresses import EngineAddresses, write_engines
from tests.support.behaviours import engine
from tests.support.comparator_process import Process, comparator
from tests.support.control_process import GATEWAY, ControlProcess, external
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream


@dataclass
class Installation:
    control: ControlProcess
    gateways: list[GatewayProcess]
    comparator: Process

    def targets(self) -> dict[str, dict[str, Any]]:
        """Process -> its labels, with its address as `target`."""
        answer = httpx.get(f"{self.control.url}/metrics/targets")
        assert answer.headers["content-type"] == "application/json"
        found = {}
        for group in answer.json():
            (address,) = group["targets"]
            found[group["labels"]["process"]] = {**group["labels"], "target": address}
        return found

    def values(self, name: str, **labels: str) -> dict[str, float]:
        """Process -> sum of the samples of this name on the aggregated page."""
        text = httpx.get(f"{self.control.url}/metrics/all").text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    process = sample.labels["process"]
                    found[process] = found.get(process, 0.0) + sample.value
        return found


@contextlib.asynccontextmanager
async def installed(folder: Path) -> AsyncIterator[Installation]:
    build = ScriptedUpstream("full", engine(Engine("full")))
    build.start()
    model = external(full=build.url, int8="http://127.0.0.1:2")
    control = ControlProcess(folder, {"demo": model})
    table = {"epoch": 0, "models": {"demo": model}}
    gateways = [
        GatewayProcess(
            {"control_url": control.url, "snapshot": table, "gateway_id": f"gateway-{number}"},
            folder,
            {"PENUMBRA_GATEWAY_TOKEN": GATEWAY},
        )
        for number in range(2)
    ]
    try:
        await asyncio.to_thread(control.start)
        for gateway in gateways:
            await asyncio.to_thread(gateway.start)
        async with comparator(folder, control.url, token=GATEWAY) as process:
            installation = Installation(control, gateways, process)
            await until(lambda: len(installation.targets()) == 6)
            yield installation
    finally:
        for gateway in gateways:
            await asyncio.to_thread(gateway.stop)
        control.__exit__()
        build.stop()


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(eventually, condition, timeout=60.0, what="the targets")


def check_discovery(it: Installation) -> None:
    targets = it.targets()
    assert {name: labels["process_kind"] for name, labels in targets.items()} == {
        "control": "control",
        "gateway-0": "gateway",
        "gateway-1": "gateway",
        "comparator-0": "comparator",
        "demo-full-0": "engine",
        "demo-int8-0": "engine",
    }
    for gateway, name in zip(it.gateways, ("gateway-0", "gateway-1"), strict=True):
        assert targets[name]["target"] == f"127.0.0.1:{gateway.internal_port}"
    assert targets["comparator-0"]["target"] == f"127.0.0.1:{it.comparator.port}"
    for name in ("control", "gateway-0", "gateway-1", "comparator-0"):
        page = httpx.get(f"http://{targets[name]['target']}/metrics")
        assert page.status_code == 200
        assert "# TYPE penumbra_" in page.text


def check_replicas(it: Installation) -> None:
    found = EngineAddresses(path="/demo-int8/metrics", replicas={"0": "h:1", "1": "h:2"})
    write_engines(it.control.replicas, {"demo": {"int8": found}})
    targets = it.targets()
    assert targets["demo-int8-1"] == {
        "process_kind": "engine",
        "process": "demo-int8-1",
        "model": "demo",
        "variant": "int8",
        "replica": "1",
        "__metrics_path__": "/demo-int8/metrics",
        "target": "h:2",
    }
    it.control.replicas.unlink()


async def check_aggregate(it: Installation) -> None:
    for gateway, count in zip(it.gateways, (1, 2), strict=True):
        for _ in range(count):
            assert (await asyncio.to_thread(gateway.post, CHAT, chat())).status == 200
    answered = it.values("penumbra_requests_total", model="demo", variant="full")
    assert answered == {"gateway-0": 1.0, "gateway-1": 2.0}
    up = it.values("penumbra_process_up")
    ours = {"control", "gateway-0", "gateway-1", "comparator-0"}
    assert {name for name, value in up.items() if value} >= ours
    assert up["demo-int8-0"] == 0.0  # nothing listens there
    assert it.values("penumbra_control_epoch") == {"control": 1.0}


async def check_restart(it: Installation) -> None:
    gateway = it.gateways[1]
    gateway.process.kill()
    gateway.process.wait(5.0)
    await until(lambda: it.values("penumbra_process_up")["gateway-1"] == 0.0)
    # Listed where it was, so that Prometheus finds it down.
    assert it.targets()["gateway-1"]["target"] == f"127.0.0.1:{gateway.internal_port}"
    assert it.values("penumbra_requests_total", variant="full") == {"gateway-0": 1.0}
    await asyncio.to_thread(gateway.start)
    await until(lambda: it.values("penumbra_process_up")["gateway-1"] == 1.0)
    assert await asyncio.to_thread(gateway.post, CHAT, chat())
    # It counts from the start again, and the other goes on.
    answered = it.values("penumbra_requests_total", variant="full")
    assert answered == {"gateway-0": 1.0, "gateway-1": 1.0}
    assert len(it.targets()) == 6


async def test_processes_are_found_and_told_apart_and_stay_when_they_die(tmp_path: Path) -> None:
    async with installed(tmp_path) as it:
        check_discovery(it)
        check_replicas(it)
        await check_aggregate(it)
        await check_restart(it)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_a_process_that_binds_every_address_is_found_where_it_connects_from(
    control: ControlProcess, tmp_path: Path, address: str
) -> None:
    table = {"epoch": 0, "models": {"demo": external()}}
    settings = {"control_url": control.url, "snapshot": table, "internal_host": address}
    gateway = GatewayProcess(settings, tmp_path, {"PENUMBRA_GATEWAY_TOKEN": GATEWAY})
    with gateway:

        def found() -> list[Any]:
            groups = httpx.get(f"{control.url}/metrics/targets").json()
            return [
                group["targets"] for group in groups if group["labels"]["process"] == "gateway-0"
            ]

        eventually(lambda: found() == [[f"127.0.0.1:{gateway.internal_port}"]], found=found)
