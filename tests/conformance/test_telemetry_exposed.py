"""Gateways and comparators expose what the registry says, all of it and nothing else."""

import asyncio
import math
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family

from penumbra.monitoring.metrics.cells import CellCollector
from penumbra.monitoring.observations import Arm, Pair, SelfTest
from penumbra.monitoring.telemetry.metric import Kind, Metric, Process
from penumbra.monitoring.telemetry.page import page
from penumbra.monitoring.telemetry.registry import BY_NAME, METRICS
from penumbra.monitoring.vocabulary import Outcome, Reason, role_of
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot, Variant
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.gauges import declare_gauges
from penumbra.router.link.observation_outbox import ObservationOutbox
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.settings import GatewaySettings
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.comparator import Comparator
from penumbra.router.shadow.engine_facts import EngineFacts
from penumbra.router.shadow.server import _expose_link
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.shadow.watch_list import WatchList

DOCS = Path(__file__).parents[2] / "docs"
TABLE = Snapshot(
    epoch=1,
    models={
        "demo": ModelSnapshot(
            baseline="full",
            variants={name: Variant(url=f"http://127.0.0.1:9/{name}") for name in ("full", "int8")},
        )
    },
)


def exposed(cells: CellCollector) -> dict[str, Family]:
    registry = CollectorRegistry()
    registry.register(cells)
    return {family.name: family for family in registry.collect()}


def gateway_families() -> dict[str, Family]:
    settings = GatewaySettings(snapshot=TABLE, control_url="http://127.0.0.1:9")
    gateway = Gateway(settings, lambda: 0.0)
    declare_gauges(gateway, None)
    metrics = gateway.metrics
    for name in ("full", "int8"):
        cells = metrics.variant("demo", name, role_of(name, "full"))
        cells.of("other").requests.value += 1
        cells.count_decision(Reason.SPLIT)
        cells.count_failover(Outcome.DIED)
    metrics.errors.cell("model_not_found").value += 1
    metrics.mirrored.cell("demo", "int8", "other").value += 1
    metrics.mirror_sheds.cell("demo", "int8", ShedReason.ERROR.value).value += 1
    gateway.local_guard.trips["demo", "int8"] = 1
    return exposed(metrics.cells)


def comparator_families(folder: Path) -> dict[str, Family]:
    settings = ShadowSettings(control_url="http://127.0.0.1:9", socket_path=folder / "s")
    reporter = ObservationOutbox("comparator-0", "x")
    clocks = Clocks(lambda: 0.0, lambda: 0.0)
    watched = WatchList(lambda *_: None, 10)  # type: ignore[arg-type, return-value]
    comparator = Comparator(settings, watched, EngineFacts(settings, clocks), reporter, clocks)
    metrics = comparator.metrics

    class Link:
        is_connected = True

    _expose_link(comparator, reporter, Link())  # type: ignore[arg-type]
    for arm in Arm:
        pair = Pair(
            "r", "other", 1, arm, displacement=0.5, harm=1, failed=("json",), missing="timeout"
        )
        metrics.count_pair("demo", "int8", pair)
    metrics.took("demo", 0.1)
    metrics.shed("demo", ShedReason.BUSY)
    metrics.tested("demo", SelfTest(is_ok=True, largest_gap=0.1, detail="", at=0.0))
    metrics.saw_health({("demo", "int8"): True})
    metrics.faults.cell("health").value += 1
    return exposed(metrics.cells)


@pytest.fixture
async def families(tmp_path: Path) -> dict[Process, dict[str, Family]]:
    await asyncio.sleep(0)  # both want a running loop
    return {
        Process.GATEWAY: gateway_families(),
        Process.COMPARATOR: comparator_families(tmp_path),
    }


def is_known_value(metric: Metric, name: str, value: str) -> bool:
    label = next(label for label in metric.labels if label.name == name)
    return not label.values or value in label.values


async def test_processes_expose_the_registry_s_metrics_and_no_others(
    families: dict[Process, dict[str, Family]],
) -> None:
    for process, found in families.items():
        wanted = {
            metric.name.removesuffix("_total") for metric in METRICS if metric.process is process
        }
        assert set(found) == wanted


async def test_samples_have_the_registry_s_labels_with_values_from_closed_sets(
    families: dict[Process, dict[str, Family]],
) -> None:
    for found in families.values():
        for name, family in found.items():
            metric = BY_NAME.get(name) or BY_NAME[f"{name}_total"]
            assert family.samples, name
            assert family.documentation == metric.help
            for sample in family.samples:
                labels = {key: value for key, value in sample.labels.items() if key != "le"}
                assert tuple(labels) == metric.label_names
                assert all(is_known_value(metric, *item) for item in labels.items()), labels
                assert math.isfinite(sample.value)


async def test_types_are_the_registry_s(families: dict[Process, dict[str, Family]]) -> None:
    for found in families.values():
        for name, family in found.items():
            metric = BY_NAME.get(name) or BY_NAME[f"{name}_total"]
            assert family.type == ("gauge" if metric.kind is Kind.INFO else metric.kind.value)


def test_the_documentation_page_is_the_registry_s() -> None:
    assert (DOCS / "metrics.md").read_text() == page()
