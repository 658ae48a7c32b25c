"""From the registry's definitions to what prometheus-client writes."""

from collections.abc import Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from monitoring.telemetry.metric import Kind
from monitoring.telemetry.metric import Metric as Definition

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
