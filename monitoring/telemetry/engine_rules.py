"""Renders the recording rules that give vLLM's metrics their names, from `engine.METRICS`. Pure.

python -m penumbra.monitoring.telemetry.engine_rules > monitoring/rules/engines.yaml
"""

import sys
from collections.abc import Iterator

from penumbra.monitoring.telemetry.engine import METRICS, PREFIXES, EngineMetric
from penumbra.monitoring.telemetry.metric import Kind

_LEVEL = "model, variant, replica"
_HEAD = """\
# What is used of the engines' own metrics, by the names that dashboards and alerts have for them.
#
# Made from monitoring/telemetry/engine.py; a test keeps both equal. To make it anew:
#   python -m penumbra.monitoring.telemetry.engine_rules > monitoring/rules/engines.yaml
#
# vLLM's names come plain and, through Ray's exporter, with `ray_vllm_` or `ray_vllm:`; of a replica
# that is scraped both ways the first counts. `model`, `variant` and `replica` are the labels that
# discovery adds; what was scraped without them is not looked at.
# Adding up counters before they are differentiated is safe here: all series of a replica begin anew
# together, when its process does. A replica that says nothing has no series, and never NaN.
groups:
  - name: penumbra_engines
    rules:
"""


def render() -> str:
    """The whole file."""
    return _HEAD + "".join(_rule(record, expr) for record, expr in rules())


def rules() -> Iterator[tuple[str, str]]:
    """Each rule's name and expression, in the file's order."""
    for metric in METRICS:
        for record, suffix in zip(metric.sample_names, _suffixes(metric), strict=True):
            level = f"{_LEVEL}, le" if suffix == "_bucket" else _LEVEL
            total = "sum" if metric.is_sum else "max"
            yield (
                record,
                "\nor ".join(
                    f'{total} by ({level}) ({prefix}{metric.source}{suffix}{{variant!=""}})'
                    for prefix in PREFIXES
                ),
            )


def _suffixes(metric: EngineMetric) -> tuple[str, ...]:
    return ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)


def _rule(record: str, expr: str) -> str:
    lines = "".join(f"          {line}\n" for line in expr.splitlines())
    return f"      - record: {record}\n        expr: |\n{lines}"


if __name__ == "__main__":
    sys.stdout.write(render())
