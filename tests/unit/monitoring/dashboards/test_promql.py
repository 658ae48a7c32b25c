import pytest

from penumbra.monitoring.dashboards.promql import (
    Scope,
    largest,
    mean,
    per_second,
    quantile,
    share,
)
from penumbra.monitoring.telemetry import comparator, control, engine, gateway

SCOPE = Scope(("model", "slice"))


def test_selector_is_narrowed_by_the_variables_that_the_metric_has() -> None:
    assert SCOPE.pick(control.SHARE) == 'penumbra_rollout_share_ratio{model=~"$model"}'
    assert SCOPE.pick(control.EPOCH) == "penumbra_control_epoch"


def test_matcher_takes_the_place_of_its_variable() -> None:
    assert SCOPE.pick(control.MEAN, 'slice="*"') == (
        'penumbra_signal_mean_ratio{model=~"$model",slice="*"}'
    )
    assert SCOPE.pick(control.MEAN, 'slice=~"$slice"', 'slice!="*"').count("slice") == 3


def test_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match="not \\['signal'\\]"):
        SCOPE.pick(control.SHARE, 'signal="harm"')


def test_part_must_fit_the_kind() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        SCOPE.pick(gateway.DURATION)
    with pytest.raises(ValueError, match="does not fit"):
        SCOPE.pick(control.SHARE, part="sum")


def test_engine_metrics_have_the_labels_of_discovery() -> None:
    assert SCOPE.pick(engine.RUNNING) == 'penumbra_engine_requests_running{model=~"$model"}'
    with pytest.raises(ValueError, match="candidate"):
        SCOPE.pick(engine.RUNNING, 'candidate="int8"')


def test_several_processes_that_say_the_same_are_one_series() -> None:
    assert largest("model", "x") == "max by (model) (x)"


def test_quantile_says_nothing_where_nothing_was_observed() -> None:
    assert quantile(Scope(()), comparator.LAG, 0.99, "model") == (
        "histogram_quantile(0.99, sum by (le, model) "
        "(rate(penumbra_shadow_lag_seconds_bucket[$__rate_interval])))"
        " and on (model) "
        "(sum by (model) (rate(penumbra_shadow_lag_seconds_count[$__rate_interval])) > 0)"
    )


def test_means_and_shares_divide_rates_by_what_is_above_zero() -> None:
    whole = per_second("a", "w")
    assert mean("a", "s", "w") == f"{per_second('a', 's')} / ({whole} > 0)"
    assert share("a", "p", "w") == (f"({per_second('a', 'p')} or {whole} * 0) / ({whole} > 0)")
