"""Counters and histograms that cost one addition, exposed through prometheus-client.

A labelled `prometheus_client` metric takes a lock and a look-up for each event; on the byte path
that is more than the rest of the bookkeeping together. Here the hot code holds a *cell* and adds to
a plain number (one event loop, one thread); `CellCollector` turns the cells into samples when it is
scraped. Reading order: Counter, Histogram, CellCollector.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from penumbra.monitoring.metrics.exposition import Labelled, samples
from penumbra.monitoring.telemetry.metric import Kind
from penumbra.monitoring.telemetry.metric import Metric as Definition


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """Observations counted by bucket (upper bounds inclusive)."""

    __slots__ = ("buckets", "counts", "exemplars", "total")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[str, float]] | None = None
        """Index of a bucket -> trace id and value of the last traced observation in it."""

    def observe(self, value: float, trace_id: str | None = None) -> None:
        """Count one observation, and remember its trace if it has one."""
        index = bisect_left(self.buckets, value)
        self.counts[index] += 1
        self.total += value
        if trace_id is not None:
            if self.exemplars is None:
                self.exemplars = {}
            self.exemplars[index] = (trace_id, value)


CellT = TypeVar("CellT", Counter, Histogram)


class Family(Generic[CellT]):
    """All cells of one metric, by label values. Callers take a cell once and keep it."""

    def __init__(self, metric: Definition, make: Callable[[], CellT]) -> None:
        self.metric = metric
        self._make: Callable[[], CellT] = make
        self.cells: dict[tuple[str, ...], CellT] = {}

    def cell(self, *values: str) -> CellT:
        """The cell of these label values, made on first use."""
        cell = self.cells.get(values)
        if cell is None:
            names = self.metric.label_names
            if len(values) != len(names):
                raise ValueError(f"{self.metric.name} has labels {names}, got {values}")
            cell = self.cells[values] = self._make()
        return cell


class CellCollector(Collector):
    """The metrics of one process, for a `prometheus_client` registry.

    Every metric is one of `penumbra.monitoring.telemetry.registry`, and each is exposed once.
    """

    def __init__(self) -> None:
        self._counters: list[Family[Counter]] = []
        self._histograms: list[Family[Histogram]] = []
        self._read: list[tuple[Definition, Callable[[], Labelled]]] = []

    def counter(self, metric: Definition) -> Family[Counter]:
        """Add a family of counters."""
        family = Family(_require_kind(metric, Kind.COUNTER), Counter)
        self._counters.append(family)
        return family

    def histogram(self, metric: Definition) -> Family[Histogram]:
        """Add a family of histograms over the metric's buckets."""
        buckets = _require_kind(metric, Kind.HISTOGRAM).buckets
        family = Family(metric, lambda: Histogram(buckets))
        self._histograms.append(family)
        return family

    def read(self, metric: Definition, read: Callable[[], float]) -> None:
        """Add a gauge, or a counter kept elsewhere, that is read when scraped."""
        self.read_by(metric, lambda: {(): read()})

    def read_by(self, metric: Definition, read: Callable[[], Labelled]) -> None:
        """Add a labelled metric that is read when scraped, with the label values it has then."""
        if metric.kind is Kind.HISTOGRAM:
            raise ValueError(f"{metric.name} is a histogram")
        self._read.append((metric, read))

    def collect(self) -> Iterator[Metric]:
        """Turn all cells into samples; prometheus_client calls it for each scrape."""
        for counters in self._counters:
            values = {labels: counter.value for labels, counter in counters.cells.items()}
            yield samples(counters.metric, values)
        for histograms in self._histograms:
            yield _histogram_samples(histograms)
        for metric, read in self._read:
            yield samples(metric, read())


def _require_kind(metric: Definition, kind: Kind) -> Definition:
    if metric.kind is not kind:
        raise ValueError(f"{metric.name} is a {metric.kind}, not a {kind}")
    return metric


def _histogram_samples(family: Family[Histogram]) -> HistogramMetricFamily:
    metric = family.metric
    exposed = HistogramMetricFamily(metric.name, metric.help, labels=metric.label_names)
    for values, cell in family.cells.items():
        bounds = [*(repr(bound) for bound in cell.buckets), "+Inf"]
        traced = cell.exemplars or {}
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        for index, (bound, count) in enumerate(zip(bounds, accumulate(cell.counts), strict=True)):
            if index in traced:
                trace_id, value = traced[index]
                buckets.append((bound, count, Exemplar({"trace_id": trace_id}, value)))
            else:
                buckets.append((bound, count))
        exposed.add_metric(values, buckets, sum_value=cell.total)
    return exposed
