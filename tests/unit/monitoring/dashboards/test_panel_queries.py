from typing import Any

import pytest

from tests.support.panel_queries import (
    ALL,
    Times,
    annotation_queries,
    panel_queries,
    panels,
    variable_queries,
)

TIMES = Times(interval=2, span=180, scrape=1)


def dashboard(expr: str = 'x{model=~"$model",slice=~"$slice"}', **target: Any) -> dict[str, Any]:
    asked = {"refId": "A", "expr": expr, "legendFormat": "{{slice}}", "range": True, **target}
    panel = {"id": 2, "type": "timeseries", "title": "X", "targets": [asked]}
    hidden = {**panel, "id": 4, "title": "Y"}
    return {
        "uid": "penumbra-test",
        "panels": [
            {"id": 1, "type": "row", "title": "row", "panels": []},
            panel,
            {"id": 3, "type": "row", "title": "closed", "collapsed": True, "panels": [hidden]},
        ],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {"name": "model", "type": "query", "query": "label_values(m, model)"},
                {
                    "name": "slice",
                    "type": "query",
                    "query": 'label_values(m{model=~"$model"}, slice)',
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".+",
                },
            ]
        },
        "annotations": {
            "list": [{"name": "marks", "expr": 's{model=~"$model"} * 1000', "step": "10s"}]
        },
    }


def expr_of(template: str, **choice: Any) -> str:
    return panel_queries(dashboard(template), {"model": "demo", **choice}, TIMES)[0].expr


def test_everything_is_the_variables_all_value() -> None:
    assert expr_of('x{slice=~"$slice"}') == 'x{slice=~".+"}'
    assert expr_of('x{slice=~"$slice"}', slice=ALL) == 'x{slice=~".+"}'


def test_several_choices_are_alternatives() -> None:
    assert expr_of('x{slice=~"$slice"}', slice=["a", "b"]) == 'x{slice=~"(a|b)"}'
    assert expr_of('x{slice=~"$slice|[*]"}', slice=["a"]) == 'x{slice=~"a|[*]"}'


def test_special_characters_are_escaped_for_a_regular_expression_in_a_string() -> None:
    assert expr_of('x{slice=~"$slice"}', slice="*") == 'x{slice=~"\\\\*"}'
    assert expr_of('x{slice=~"$slice"}', slice="a.b") == 'x{slice=~"a\\\\.b"}'


def test_a_single_choice_is_put_in_as_it_is() -> None:
    assert expr_of('x{model=~"$model"}') == 'x{model=~"demo"}'


def test_windows_follow_from_the_times() -> None:
    template = "rate(x[$__rate_interval]) + y[$__interval] + z[$__range]"
    assert expr_of(template) == "rate(x[4000ms]) + y[2000ms] + z[180000ms]"


@pytest.mark.parametrize(
    ("interval", "scrape", "expected"), [(2, 1, 4), (15, 15, 60), (60, 15, 75), (1, 5, 20)]
)
def test_rate_interval_holds_four_scrapes(interval: float, scrape: float, expected: float) -> None:
    assert Times(interval=interval, span=600, scrape=scrape).rate_interval == expected


def test_unknown_variable_is_an_error() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        expr_of('x{a="$nonsense"}')


def test_variable_without_all_needs_a_choice() -> None:
    with pytest.raises(KeyError, match="model"):
        panel_queries(dashboard(), {}, TIMES)


def test_panels_in_collapsed_rows_count_and_rows_do_not() -> None:
    assert [panel["title"] for panel in panels(dashboard())] == ["X", "Y"]
    found = panel_queries(dashboard(instant=True), {"model": "demo"}, TIMES)
    assert [query.key for query in found] == [("test", "X", "A"), ("test", "Y", "A")]
    assert all(query.is_instant for query in found)


def test_variables_ask_for_label_values() -> None:
    model, slices = variable_queries(dashboard(), {"model": "demo"})
    assert (model.label, model.match) == ("model", "m")
    assert (slices.name, slices.match) == ("slice", 'm{model=~"demo"}')


def test_annotations_are_filled_in() -> None:
    (mark,) = annotation_queries(dashboard(), {"model": "demo"})
    assert mark.expr == 's{model=~"demo"} * 1000'
