"""Turns metrics into prometheus-client's samples and a registry into a response to a scrape."""

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from penumbra.monitoring.telemetry.metric import Kind
from penumbra.monitoring.telemetry.metric import Metric as Definition

Labelled = Mapping[tuple[str, ...], float]
"""Label values, in the definition's order -> value."""


def samples(metric: Definition, values: Labelled) -> Metric:
    """The samples of a counter, a gauge or an info metric.

    Raises:
        ValueError: The metric is a histogram, or values do not fit its labels.
    """
    labels = metric.label_names
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind is Kind.HISTOGRAM:
        raise ValueError(f"{metric.name} is a histogram")
    if metric.kind is Kind.COUNTER:
        family = CounterMetricFamily(metric.name, metric.help, labels=labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.help, labels=labels)
    for labelled, value in values.items():
        if len(labelled) != len(labels):
            raise ValueError(f"{metric.name} has labels {labels}, got {labelled}")
        family.add_metric(labelled, value)
    return family


@dataclass(frozen=True, slots=True)
class Exposed:
    """One answer to a scrape."""

    body: bytes
    content_type: str


def expose(registry: CollectorRegistry, accept: str | None) -> Exposed:
    """Write all metrics of a registry.

    Args:
        registry: The metrics of one process.
        accept: The scraper's Accept header. The response is OpenMetrics, which carries exemplars,
            if the header names it.
    """
    encode, content_type = choose_encoder(accept or "")
    return Exposed(encode(registry), content_type)
