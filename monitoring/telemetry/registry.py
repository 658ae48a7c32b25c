"""The registry of all metrics, by name and by process, with the most series they make. Pure.

Code makes its metrics from these definitions and from nothing else; the documentation page is
generated from them; dashboards and rules may use no name that is not here (tests/conformance).

Reading order: metric.Metric, labels, then gateway, comparator, control, engine.
"""

from penumbra.monitoring.telemetry import comparator, control, engine, gateway
from penumbra.monitoring.telemetry.metric import Metric, Process

METRICS: tuple[Metric, ...] = (
    *gateway.METRICS,
    *comparator.METRICS,
    *control.METRICS,
    *control.AGGREGATE_METRICS,
)
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}

MOST_SERIES = 12_000
"""The budget of one process of the installation that `labels` counts with: what Prometheus scrapes
in well under a second. Half of it is one model's."""

SAMPLE_NAMES = frozenset(name for metric in METRICS for name in metric.sample_names) | frozenset(
    name for metric in engine.METRICS for name in metric.sample_names
)
"""Every name that a rule or a dashboard may ask for, besides those that rules record."""


def most_series(process: Process) -> int:
    """The most series that one process of this kind can expose."""
    return sum(metric.most_series for metric in METRICS if metric.process is process)
