import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penumbra.monitoring.metrics.cells import CellCollector
from penumbra.monitoring.metrics.exposition import expose
from penumbra.monitoring.telemetry import gateway as of
from penumbra.monitoring.telemetry.metric import Kind, Label, Metric, Process

THINGS = Metric(
    "penumbra_things_total", Kind.COUNTER, "Things.", Process.GATEWAY, (Label("kind", "Which."),)
)
SECONDS = Metric(
    "penumbra_seconds", Kind.HISTOGRAM, "Seconds.", Process.GATEWAY, buckets=(0.001, 0.0025, 120.0)
)
LEVEL = Metric("penumbra_level", Kind.GAUGE, "Level.", Process.GATEWAY)


def rendered(collector: CellCollector) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(collector)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_counters_are_exposed_with_total() -> None:
    collector = CellCollector()
    collector.counter(THINGS).cell("a").value += 3
    assert rendered(collector)[("penumbra_things_total", (("kind", "a"),))] == 3


def test_a_cell_is_made_once() -> None:
    family = CellCollector().counter(THINGS)
    assert family.cell("a") is family.cell("a")


def test_a_wrong_number_of_labels_is_refused() -> None:
    family = CellCollector().counter(THINGS)
    with pytest.raises(ValueError, match="kind"):
        family.cell("a", "b")


def test_a_metric_of_another_kind_is_refused() -> None:
    collector = CellCollector()
    with pytest.raises(ValueError, match="gauge"):
        collector.counter(LEVEL)
    with pytest.raises(ValueError, match="counter"):
        collector.histogram(THINGS)
    with pytest.raises(ValueError, match="histogram"):
        collector.read(SECONDS, lambda: 1.0)


def test_histogram_buckets_are_cumulative_with_inclusive_bounds() -> None:
    collector = CellCollector()
    cell = collector.histogram(SECONDS).cell()
    for seconds in (0.001, 0.002, 500.0):
        cell.observe(seconds)
    samples = rendered(collector)
    assert samples[("penumbra_seconds_bucket", (("le", "0.001"),))] == 1
    assert samples[("penumbra_seconds_bucket", (("le", "0.0025"),))] == 2
    assert samples[("penumbra_seconds_bucket", (("le", "120.0"),))] == 2
    assert samples[("penumbra_seconds_bucket", (("le", "+Inf"),))] == 3
    assert samples[("penumbra_seconds_count", ())] == 3
    assert samples[("penumbra_seconds_sum", ())] == pytest.approx(500.003)


def test_a_traced_observation_is_its_bucket_s_exemplar_in_openmetrics_only() -> None:
    collector = CellCollector()
    registry = CollectorRegistry()
    registry.register(collector)
    cell = collector.histogram(of.DURATION).cell("demo", "int8", "candidate", "json")
    cell.observe(0.2, "4bf92f3577b34da6a3ce929d0e0e4736")
    cell.observe(0.3)
    told = expose(registry, "application/openmetrics-text; version=1.0.0")
    assert told.content_type.startswith("application/openmetrics-text")
    line = next(line for line in told.body.decode().splitlines() if 'le="0.25"' in line)
    assert line.endswith('# {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.2')
    plain = expose(registry, None)
    assert plain.content_type.startswith("text/plain")
    assert b"trace_id" not in plain.body


def test_gauges_are_read_when_scraped() -> None:
    collector = CellCollector()
    values = [1.0]
    collector.read(LEVEL, lambda: values[0])
    values[0] = 2.0
    assert rendered(collector)[("penumbra_level", ())] == 2.0
