"""Counters and histograms that cost one addition, exposed through prometheus-client.

A labelled `prometheus_client` metric takes a lock and a look-up for each event; on the byte path
that is more than the rest of the bookkeeping together. Here the hot code holds a *cell* and adds to
a plain number (one event loop, one thread); `CellCollector` turns the cells into samples when it is
scraped. Reading order: Counter, Histogram, CellCollector.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

LATENCY_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """Observations in seconds, counted by bucket (upper bounds inclusive)."""

    __slots__ = ("buckets", "counts", "total")

    def __init__(self, buckets: tuple[float, ...] = LATENCY_BUCKETS_SECONDS) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.buckets, seconds)] += 1
        self.total += seconds


CellT = TypeVar("CellT", Counter, Histogram)


class Family(Generic[CellT]):
    """All cells of one metric, by label values. Bind a cell once and keep it."""

    def __init__(
        self, name: str, documentation: str, labels: tuple[str, ...], make: Callable[[], CellT]
    ) -> None:
        self.name, self.documentation, self.labels = name, documentation, labels
        self._make: Callable[[], CellT] = make
        self.cells: dict[tuple[str, ...], CellT] = {}

    def cell(self, *values: str) -> CellT:
        """The cell of these label values, made on first use."""
        cell = self.cells.get(values)
        if cell is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{self.name} has labels {self.labels}, got {values}")
            cell = self.cells[values] = self._make()
        return cell


class CellCollector(Collector):
    """The metrics of one process, for a `prometheus_client` registry."""

    def __init__(self) -> None:
        self._counters: list[Family[Counter]] = []
        self._histograms: list[Family[Histogram]] = []
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._gauges_by: list[tuple[str, str, str, Callable[[], Mapping[str, float]]]] = []
        self._counted: list[tuple[str, str, Callable[[], int]]] = []

    def counter(self, name: str, documentation: str, labels: tuple[str, ...]) -> Family[Counter]:
        """A counter family; `name` without `_total`."""
        family = Family(name, documentation, labels, Counter)
        self._counters.append(family)
        return family

    def histogram(
        self, name: str, documentation: str, labels: tuple[str, ...]
    ) -> Family[Histogram]:
        """A histogram family over `LATENCY_BUCKETS_SECONDS`."""
        family = Family(name, documentation, labels, Histogram)
        self._histograms.append(family)
        return family

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A gauge that is read when scraped."""
        self._gauges.append((name, documentation, read))

    def gauge_by(
        self, name: str, documentation: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """A gauge for each value of one label, read when scraped."""
        self._gauges_by.append((name, documentation, label, read))

    def counted(self, name: str, documentation: str, read: Callable[[], int]) -> None:
        """A counter that somebody else keeps; `name` without `_total`."""
        self._counted.append((name, documentation, read))

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's Collector."""
        for counters in self._counters:
            family = CounterMetricFamily(
                counters.name, counters.documentation, labels=counters.labels
            )
            for values, counter in counters.cells.items():
                family.add_metric(values, counter.value)
            yield family
        for histograms in self._histograms:
            yield _histogram_samples(histograms)
        for name, documentation, read in self._gauges:
            yield GaugeMetricFamily(name, documentation, value=read())
        for name, documentation, label, read_all in self._gauges_by:
            gauges = GaugeMetricFamily(name, documentation, labels=(label,))
            for labelled, value in read_all().items():
                gauges.add_metric((labelled,), value)
            yield gauges
        for name, documentation, count in self._counted:
            yield CounterMetricFamily(name, documentation, value=count())


def _histogram_samples(family: Family[Histogram]) -> HistogramMetricFamily:
    samples = HistogramMetricFamily(family.name, family.documentation, labels=family.labels)
    for values, cell in family.cells.items():
        bounds = [*(repr(bound) for bound in cell.buckets), "+Inf"]
        cumulative = accumulate(cell.counts)
        samples.add_metric(values, list(zip(bounds, cumulative, strict=True)), sum_value=cell.total)
    return samples
