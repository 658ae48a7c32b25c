"""Builds PromQL queries from the registry's metrics. Pure."""

from dataclasses import dataclass

from penumbra.monitoring.telemetry.engine import EngineMetric
from penumbra.monitoring.telemetry.metric import Kind, Metric

WINDOW = "$__rate_interval"
"""Grafana's window for rates: wide enough for four scrapes, whatever the zoom."""
RANGE = "$__range"
"""The dashboard's whole time range."""
ENGINE_LABELS = ("model", "variant", "replica")


@dataclass(frozen=True, slots=True)
class Scope:
    """The variables of one dashboard, which narrow every metric that has a label of that name."""

    variables: tuple[str, ...]

    def pick(self, metric: Metric | EngineMetric, *matchers: str, part: str = "") -> str:
        """A selector of the metric.

        Args:
            metric: Of the registry.
            matchers: Further ones, such as `signal="harm"`. A label that they name is not narrowed
                by its variable as well.
            part: `bucket`, `sum` or `count` of a histogram.

        Raises:
            ValueError: A matcher names a label that the metric lacks, or the part does not fit.
        """
        if (metric.kind is Kind.HISTOGRAM) != bool(part):
            raise ValueError(f"{metric.name} is a {metric.kind}; part {part!r} does not fit it")
        known = metric.label_names if isinstance(metric, Metric) else ENGINE_LABELS
        named = {_label(matcher) for matcher in matchers}
        if unknown := named - set(known):
            raise ValueError(f"{metric.name} has the labels {known}, not {sorted(unknown)}")
        narrowed = [
            f'{name}=~"${name}"' for name in known if name in self.variables and name not in named
        ]
        inside = ",".join([*narrowed, *matchers])
        name = f"{metric.name}_{part}" if part else metric.name
        return f"{name}{{{inside}}}" if inside else name


def largest(by: str, selector: str) -> str:
    """The maximum over processes: one series for each `by` of a value that all of them tell."""
    return f"max by ({by}) ({selector})"


def smallest(by: str, selector: str) -> str:
    """The minimum over processes, for a state that is only as good as its worst process."""
    return f"min by ({by}) ({selector})"


def total(by: str, selector: str) -> str:
    """The sum over processes."""
    return f"sum by ({by}) ({selector})"


def per_second(by: str, selector: str) -> str:
    """The rate of a counter, summed over processes."""
    return total(by, f"rate({selector}[{WINDOW}])")


def reached(by: str, selector: str) -> str:
    """The highest values of counters of rare events within the dashboard's range.

    An increase would miss a series' first event, because the series begins at 1.
    """
    return total(by, f"max_over_time({selector}[{RANGE}])")


def quantile(scope: Scope, metric: Metric | EngineMetric, at: float, by: str) -> str:
    """A quantile of a histogram in the window; no series (instead of NaN) without observations."""
    buckets = per_second(f"le, {by}", scope.pick(metric, part="bucket"))
    count = per_second(by, scope.pick(metric, part="count"))
    return f"histogram_quantile({at:g}, {buckets}) and on ({by}) ({count} > 0)"


def mean(by: str, sums: str, counts: str) -> str:
    """The mean of a histogram's observations in the window."""
    return f"{per_second(by, sums)} / ({per_second(by, counts)} > 0)"


def share(by: str, part: str, whole: str) -> str:
    """The share of one kind among all events: 0 if none was of it, no series without events."""
    everything = per_second(by, whole)
    return f"({per_second(by, part)} or {everything} * 0) / ({everything} > 0)"


def _label(matcher: str) -> str:
    return matcher.partition("=")[0].rstrip("!")
