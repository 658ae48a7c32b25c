"""The dashboards are what the code says, and ask only for what there is."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from penumbra.monitoring.dashboards.__main__ import render, render_all
from penumbra.monitoring.dashboards.promql import ENGINE_LABELS
from penumbra.monitoring.telemetry import control, engine
from penumbra.monitoring.telemetry.registry import METRICS, SAMPLE_NAMES
from tests.support.panel_queries import (
    EMPTY_IN_A_HEALTHY_RUN,
    FOLDER,
    NAMES,
    Times,
    annotation_queries,
    load,
    panel_queries,
    panels,
    variable_queries,
)

ROOT = Path(__file__).parents[2]
NOT_SHOWN: dict[str, str] = {
    "penumbra_control_logins_refused_total": "no part of a rollout; the log names the addresses",
    "penumbra_process_up": "only on /metrics/all; a scrape of each process has `up`",
}
"""Metrics of the registry that no dashboard shows, and why."""
FIXED_WINDOWS: dict[str, str] = {}
"""Queries whose rate has a window of its own, and why."""
CHOICE = {"model": "demo", "candidate": "int2"}
TIMES = Times(interval=15, span=3600)

LABELS = {
    **{name: set(metric.label_names) for metric in METRICS for name in metric.sample_names},
    **{name: set(ENGINE_LABELS) for metric in engine.METRICS for name in metric.sample_names},
}
BOARDS = {name: load(name) for name in NAMES}
dashboards = pytest.mark.parametrize("name", NAMES)


def _walk(node: Any) -> Iterator[Any]:
    """Every expression inside one, itself first."""
    yield node
    for attribute in ("lhs", "rhs", "expr", "param", "vector_selector"):
        inside = getattr(node, attribute, None)
        if inside is not None:
            yield from _walk(inside)
    for argument in getattr(node, "args", None) or ():
        yield from _walk(argument)


def _selectors(expr: str) -> list[Any]:
    nodes = _walk(promql_parser.parse(expr))
    return [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]


def _asked(name: str) -> list[str]:
    board = BOARDS[name]
    return [
        *(query.expr for query in panel_queries(board, CHOICE, TIMES)),
        *(query.match for query in variable_queries(board, CHOICE)),
        *(query.expr for query in annotation_queries(board, CHOICE)),
    ]


def test_committed_files_are_what_the_code_writes() -> None:
    made = render_all()
    assert sorted(made) == sorted(path.name for path in FOLDER.iterdir())
    for name, content in made.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == content, (
            f"{name} is out of date: python -m penumbra.monitoring.dashboards"
        )


@dashboards
def test_grafanas_types_lose_nothing(name: str) -> None:
    assert json.loads(render(Dashboard.from_json(BOARDS[name]))) == BOARDS[name]


def test_uids_are_unique() -> None:
    assert [board["uid"] for board in BOARDS.values()] == [f"penumbra-{name}" for name in NAMES]


@dashboards
def test_ids_are_unique_and_positive(name: str) -> None:
    ids = [panel["id"] for panel in BOARDS[name]["panels"]] + [
        inside["id"] for panel in BOARDS[name]["panels"] for inside in panel.get("panels") or []
    ]
    assert min(ids) == 1
    assert [number for number, count in Counter(ids).items() if count > 1] == []


@dashboards
def test_titles_are_unique(name: str) -> None:
    titles = Counter(panel["title"] for panel in panels(BOARDS[name]))
    assert [title for title, count in titles.items() if count > 1] == []


@dashboards
def test_panels_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in BOARDS[name]["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for place, other in combinations(places, 2):
        is_beside = place["x"] + place["w"] <= other["x"] or other["x"] + other["w"] <= place["x"]
        is_above = place["y"] + place["h"] <= other["y"] or other["y"] + other["h"] <= place["y"]
        assert is_beside or is_above, (place, other)


@dashboards
def test_every_panel_says_what_it_is(name: str) -> None:
    for panel in panels(BOARDS[name]):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["legendFormat"] or panel["type"] == "table", panel["title"]


@dashboards
def test_every_source_is_the_variable(name: str) -> None:
    board = BOARDS[name]
    assert "__inputs" not in board
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(board):
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
    assert all(annotation["datasource"] == source for annotation in board["annotations"]["list"])
    kinds = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert kinds["datasource"]["type"] == "datasource"
    assert kinds["datasource"]["query"] == "prometheus"
    for variable in kinds.values():
        assert variable["type"] != "query" or variable["datasource"] == source


@dashboards
def test_rates_have_grafanas_window(name: str) -> None:
    for panel in panels(BOARDS[name]):
        for target in panel["targets"]:
            expr = target["expr"]
            windows = re.findall(r"\b(?:rate|irate|increase|delta)\([^\[]*\[([^\]]+)\]", expr)
            assert len(windows) == len(re.findall(r"\b(?:rate|irate|increase|delta)\(", expr))
            if expr not in FIXED_WINDOWS:
                assert set(windows) <= {"$__rate_interval"}, expr


@dashboards
def test_no_histogram_is_read_since_its_process_began(name: str) -> None:
    """But for rollbacks: a window of seconds has none."""
    for panel in panels(BOARDS[name]):
        for target in panel["targets"]:
            raw = re.findall(r"(?<!rate\()\b(penumbra_\w+_(?:sum|count|bucket))\{?", target["expr"])
            raw = [sample for sample in raw if sample in SAMPLE_NAMES]
            assert {sample.rpartition("_")[0] for sample in raw} <= {control.ROLLBACK_SECONDS.name}


@dashboards
def test_every_metric_and_label_exists(name: str) -> None:
    for expr in _asked(name):
        for selector in _selectors(expr):
            assert selector.name in SAMPLE_NAMES, expr
            known = LABELS[selector.name] | {"le"}
            asked = {matcher.name for matcher in selector.matchers.matchers}
            assert asked <= known, f"{selector.name} has no {asked - known}"


@dashboards
def test_series_are_grouped_and_named_by_labels_that_they_have(name: str) -> None:
    for query in panel_queries(BOARDS[name], CHOICE, TIMES):
        known = {"process"} | {
            label for selector in _selectors(query.expr) for label in LABELS[selector.name]
        }
        used = set(re.findall(r"{{(\w+)}}", query.legend))
        for grouping in re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", query.expr):
            used |= {label.strip() for label in grouping.split(",") if label.strip()} - {"le"}
        assert used <= known, f"{query.title}: {used - known}"


def test_every_metric_is_shown() -> None:
    asked = {
        selector.name
        for name in NAMES
        for query in panel_queries(BOARDS[name], CHOICE, TIMES)
        for selector in _selectors(query.expr)
    }
    asked |= {
        selector.name
        for name in NAMES
        for query in annotation_queries(BOARDS[name], CHOICE)
        for selector in _selectors(query.expr)
    }
    unseen = {metric.name for metric in METRICS if not set(metric.sample_names) & asked}
    unseen |= {metric.name for metric in engine.METRICS if not set(metric.sample_names) & asked}
    assert unseen == set(NOT_SHOWN)


def test_queries_that_may_be_empty_exist() -> None:
    known = {query.key for name in NAMES for query in panel_queries(BOARDS[name], CHOICE, TIMES)}
    assert set(EMPTY_IN_A_HEALTHY_RUN) <= known


def test_product_code_does_not_need_the_dashboards() -> None:
    """They need Grafana's SDK, which only developers have."""
    for package in ("serve", "deployments", "router", "monitoring"):
        for path in (ROOT / package).rglob("*.py"):
            if path.is_relative_to(ROOT / "monitoring" / "dashboards"):
                continue
            source = path.read_text(encoding="utf-8")
            assert "grafana_foundation_sdk" not in source, path
            assert not re.search(r"^\s*(from|import) monitoring\.dashboards", source, re.M), path


def test_links_to_runbooks_lead_to_pages_that_exist() -> None:
    runbooks = Path(__file__).parents[2] / "docs" / "runbooks"
    links = {
        link["url"].rpartition("/")[2]
        for name in NAMES
        for panel in panels(BOARDS[name])
        for link in panel.get("links") or ()
        if link["url"].endswith(".md")
    }
    assert links
    assert {link for link in links if not (runbooks / link).exists()} == set()
