"""The registry keeps Prometheus's conventions and its own budget."""

import re
from collections import Counter

import pytest

from penumbra.monitoring.telemetry import engine
from penumbra.monitoring.telemetry.metric import Kind, Metric, Process, Unit
from penumbra.monitoring.telemetry.registry import BY_NAME, METRICS, MOST_SERIES, most_series
from penumbra.router.mirror.shed_reason import COMPARATOR_REASONS, GATEWAY_REASONS, ShedReason

_ABBREVIATED = re.compile(r"_(s|ms|us|ns|sec|secs|b|kb|mb|gb|pct|percent)(_|$)")


def test_each_name_is_given_once() -> None:
    assert [
        name for name, count in Counter(metric.name for metric in METRICS).items() if count > 1
    ] == []
    assert len(BY_NAME) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_name_unit_and_help_keep_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"penumbra_[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.name.endswith("_info") == (metric.kind is Kind.INFO)
    assert not _ABBREVIATED.search(metric.name)
    if metric.unit is not Unit.NUMBER:
        assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}")
    assert metric.help[0].isupper() or metric.help[0] in "01"
    assert metric.help.endswith(".")
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_labels_come_from_closed_sets(metric: Metric) -> None:
    assert len(set(metric.label_names)) == len(metric.labels)
    for label in metric.labels:
        assert re.fullmatch(r"[a-z_]+", label.name)
        assert label.values or label.most
        assert not re.search(r"(^|_)(id|user|tenant|request|session|prompt|key)$", label.name)


@pytest.mark.parametrize("process", Process)
def test_series_of_a_process_stay_within_the_budget(process: Process) -> None:
    assert 0 < most_series(process) <= MOST_SERIES


@pytest.mark.parametrize(
    ("name", "counted"), [("mirror", GATEWAY_REASONS), ("shadow", COMPARATOR_REASONS)]
)
def test_reasons_of_sheds_are_those_of_the_code(name: str, counted: frozenset[ShedReason]) -> None:
    metric = BY_NAME[f"penumbra_{name}_sheds_total"]
    reasons = next(label.values for label in metric.labels if label.name == "reason")
    assert set(reasons) == {reason.value for reason in counted}


def test_each_reason_of_a_shed_is_counted_by_a_process() -> None:
    assert set(ShedReason) == GATEWAY_REASONS | COMPARATOR_REASONS


def test_engine_metrics_have_names_of_their_own() -> None:
    names = [metric.name for metric in engine.METRICS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(BY_NAME)
