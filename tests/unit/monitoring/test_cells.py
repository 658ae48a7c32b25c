import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitoring.cells import CellCollector


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
    family = collector.counter("penumbra_things", "Things.", ("kind",))
    family.cell("a").value += 3
    assert rendered(collector)[("penumbra_things_total", (("kind", "a"),))] == 3


def test_a_cell_is_made_once() -> None:
    family = CellCollector().counter("penumbra_things", "Things.", ("kind",))
    assert family.cell("a") is family.cell("a")


def test_a_wrong_number_of_labels_is_refused() -> None:
    family = CellCollector().counter("penumbra_things", "Things.", ("kind",))
    with pytest.raises(ValueError, match="kind"):
        family.cell("a", "b")


def test_histogram_buckets_are_cumulative_with_inclusive_bounds() -> None:
    collector = CellCollector()
    cell = collector.histogram("penumbra_seconds", "Seconds.", ()).cell()
    for seconds in (0.001, 0.002, 500.0):
        cell.observe(seconds)
    samples = rendered(collector)
    assert samples[("penumbra_seconds_bucket", (("le", "0.001"),))] == 1
    assert samples[("penumbra_seconds_bucket", (("le", "0.0025"),))] == 2
    assert samples[("penumbra_seconds_bucket", (("le", "120.0"),))] == 2
    assert samples[("penumbra_seconds_bucket", (("le", "+Inf"),))] == 3
    assert samples[("penumbra_seconds_count", ())] == 3
    assert samples[("penumbra_seconds_sum", ())] == pytest.approx(500.003)


def test_gauges_are_read_when_scraped() -> None:
    collector = CellCollector()
    values = [1.0]
    collector.gauge("penumbra_level", "Level.", lambda: values[0])
    values[0] = 2.0
    assert rendered(collector)[("penumbra_level", ())] == 2.0
