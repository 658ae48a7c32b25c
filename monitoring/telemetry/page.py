"""Renders the documentation page of the registry, docs/metrics.md."""

import sys
from collections.abc import Iterator

from penumbra.monitoring.telemetry import engine
from penumbra.monitoring.telemetry.metric import Kind, Label, Metric, Process
from penumbra.monitoring.telemetry.registry import METRICS, MOST_SERIES, most_series

_INTRODUCTION = """\
# Metrics

Generated from `monitoring/telemetry/` by `python -m penumbra.monitoring.telemetry.page >
docs/metrics.md`; a test keeps page, code and dashboards equal. Base units; `_total` on counters
only; labels from closed sets: no request, session, user or key is ever in one.

Every process has a `/metrics` of its own; the control process lists them all for Prometheus under
`/metrics/targets` (docs/control-plane.md). Asked for OpenMetrics, the histograms of latencies carry
the trace id of their last traced observation as an exemplar."""

_TITLES = {
    Process.GATEWAY: "Every gateway process",
    Process.COMPARATOR: "Every comparator",
    Process.CONTROL: "The control process",
}


def page() -> str:
    """The whole page as Markdown."""
    return (
        "\n\n".join([_INTRODUCTION, _budget(), *map(_process, Process), _engines(), _labels()])
        + "\n"
    )


def _budget() -> str:
    lines = [f"| {_TITLES[process]} | {most_series(process):,} |" for process in Process]
    return "\n".join(
        [
            "## How many series",
            "",
            "At most, for two models of four variants and 21 slices each, every label at every"
            f" value; the budget is {MOST_SERIES:,} a process:",
            "",
            "| | series |",
            "|---|---:|",
            *lines,
        ]
    )


def _process(process: Process) -> str:
    rows = [_row(metric) for metric in METRICS if metric.process is process]
    head = ["| metric | type | labels | what |", "|---|---|---|---|"]
    return "\n".join([f"## {_TITLES[process]}", "", *head, *rows])


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{name}`" for name in metric.label_names) or "-"
    return f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.help}{_buckets(metric)} |"


def _buckets(metric: Metric) -> str:
    if metric.kind is not Kind.HISTOGRAM:
        return ""
    return f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}."


def _engines() -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind.value} | `{engine.PLAIN_PREFIX}{metric.source}` "
        f"| {metric.help} |"
        for metric in engine.METRICS
    ]
    return "\n".join(
        [
            "## Engines",
            "",
            "Recorded from vLLM's own metrics by `monitoring/rules/engines.yaml`, whether scraped"
            f" from the engine or through Ray (`{engine.RAY_PREFIX}...`), with the labels `model`,"
            " `variant` and `replica`:",
            "",
            "| metric | type | vLLM's name | what |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _labels() -> str:
    rows = [
        f"| `{label.name}` | {', '.join(f'`{value}`' for value in label.values) or 'configured'} "
        f"| {label.help} |"
        for label in _all_labels()
    ]
    head = ["| label | values | what |", "|---|---|---|"]
    return "\n".join(["## Labels", "", *head, *rows])


def _all_labels() -> Iterator[Label]:
    known = dict.fromkeys(label for metric in METRICS for label in metric.labels)
    yield from sorted(known, key=lambda label: (label.name, label.help))


if __name__ == "__main__":
    sys.stdout.write(page())
