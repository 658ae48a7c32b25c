"""Records a Prometheus's answers to every query of the dashboards."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tests.support.panel_queries import (
    ALL,
    AnnotationQuery,
    Choice,
    PanelQuery,
    Times,
    annotation_queries,
    panel_queries,
)

Result = dict[str, Any]


class PrometheusFailed(Exception):
    """Prometheus did not answer a query, or refused it."""


class Prometheus:
    """Asks one Prometheus about one time range.

    Args:
        url: Its address.
        start: Unix time in seconds.
        end: Likewise; instant queries ask for this moment.
        times: Distance of the points, and the windows that follow from it.
    """

    def __init__(self, url: str, start: float, end: float, times: Times) -> None:
        self._client = httpx.Client(base_url=url, timeout=60.0)
        self._start, self._end, self._times = start, end, times

    def answer(self, query: PanelQuery) -> Result:
        """Prometheus's `data`: `resultType` and `result`."""
        if query.is_instant:
            return self._get("query", query.expr, time=self._end)
        return self._course(query.expr, self._times.interval)

    def marks(self, query: AnnotationQuery) -> list[Result]:
        """The series of an annotation, whose values are Unix times in milliseconds."""
        series: list[Result] = self._course(query.expr, _seconds(query.step))["result"]
        return series

    def _course(self, expr: str, step: float) -> Result:
        return self._get("query_range", expr, start=self._start, end=self._end, step=step)

    def _get(self, path: str, expr: str, **parameters: float) -> Result:
        try:
            response = self._client.get(f"/api/v1/{path}", params={"query": expr, **parameters})
            content = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise PrometheusFailed(f"{expr}: {error}") from error
        if content.get("status") != "success":
            raise PrometheusFailed(f"{expr}: {content.get('error', response.status_code)}")
        data: Result = content["data"]
        return data


def answers(
    dashboard: Mapping[str, Any], choice: Choice, times: Times, prometheus: Prometheus
) -> Result:
    """The answers to all queries of one dashboard, by panel title and then by query."""
    panels: dict[str, dict[str, Result]] = {}
    for query in panel_queries(dashboard, choice, times):
        panels.setdefault(query.title, {})[query.ref] = prometheus.answer(query)
    colors = {
        annotation["name"]: annotation["iconColor"]
        for annotation in dashboard["annotations"]["list"]
    }
    return {
        "choice": choice,
        "panels": panels,
        "marks": [
            {"time": time, "name": query.name, "color": colors[query.name]}
            for query in annotation_queries(dashboard, choice)
            for time in _moments(prometheus.marks(query))
        ],
    }


def page_input(dashboard: Mapping[str, Any], kept: Mapping[str, Any]) -> Result:
    """Data from which the page draws one dashboard.

    Raises:
        KeyError: The kept results lack a panel: they are of an older dashboard.
    """
    name = str(dashboard["uid"]).removeprefix("penumbra-")
    found = kept["dashboards"][name]
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    if unknown := [panel["title"] for panel in panels if panel["title"] not in found["panels"]]:
        raise KeyError(
            f"the kept results of {name} have no panel {unknown[0]!r}: they are of another version"
            " of the dashboard; ask Prometheus again"
        )
    return {
        "dashboard": dashboard,
        "range": kept["range"],
        "choice": {
            variable["name"]: _shown(found["choice"].get(variable["name"], ALL))
            for variable in dashboard["templating"]["list"]
            if variable["type"] == "query"
        },
        "answers": {panel["id"]: found["panels"][panel["title"]] for panel in panels},
        "marks": found["marks"],
    }


def _moments(series: Sequence[Result]) -> list[float]:
    """Each time once: a series says the same until the next change."""
    return sorted({float(value) for result in series for _, value in result["values"]})


def _seconds(step: str) -> float:
    found = re.fullmatch(r"(\d+)s", step)
    if found is None:
        raise ValueError(f"a step of {step!r}; it must be a number of seconds such as 10s")
    return float(found[1])


def _shown(chosen: str | Sequence[str]) -> str:
    if chosen == ALL:
        return "All"
    return chosen if isinstance(chosen, str) else ", ".join(chosen)
