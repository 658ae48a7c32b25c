"""Fills in the dashboards' queries as Grafana sends them: variables and windows. Pure.

`panel_queries(dashboard, choice, times)` lists what the panels ask, `annotation_queries` what the
marks ask, `variable_queries` where the choices come from. EMPTY_IN_A_HEALTHY_RUN says which of them
may have nothing to show although all is well, and why.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "monitoring" / "dashboards" / "json"
NAMES = ("rollout", "quality", "traffic", "engines")
ALL = "$__all"
"""The choice of everything: its variable's `allValue` is put in as it is."""
Choice = Mapping[str, str | Sequence[str]]

_SPECIAL = re.compile(r"[$^*{}\[\]'+?.()|]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Time range and intervals in seconds; Grafana's interval is at least 1 ms."""

    interval: float
    """Distance of the points: `$__interval`."""
    span: float
    """Length of the whole range: `$__range`."""
    scrape: float = 15.0
    """Scrape interval that the data source was told."""

    @property
    def rate_interval(self) -> float:
        """`$__rate_interval`: four scrapes at least, and one more than the distance of points."""
        return max(self.interval + self.scrape, 4 * self.scrape)

    @property
    def values(self) -> dict[str, str]:
        """By variable."""
        named = {
            "__rate_interval": self.rate_interval,
            "__interval": self.interval,
            "__range": self.span,
        }
        return {name: f"{max(1, round(seconds * 1000))}ms" for name, seconds in named.items()}


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of one panel."""

    dashboard: str
    panel_id: int
    title: str
    ref: str
    expr: str
    legend: str
    is_instant: bool
    """Asked for its value at the end of the range; else for the whole range."""

    @property
    def key(self) -> tuple[str, str, str]:
        """For EMPTY_IN_A_HEALTHY_RUN."""
        return (self.dashboard, self.title, self.ref)


@dataclass(frozen=True, slots=True)
class VariableQuery:
    """`label_values(match, label)`: GET /api/v1/label/<label>/values?match[]=<match>."""

    dashboard: str
    name: str
    label: str
    match: str


@dataclass(frozen=True, slots=True)
class AnnotationQuery:
    """A range query whose values are Unix times in milliseconds."""

    dashboard: str
    name: str
    expr: str
    step: str


@dataclass(frozen=True, slots=True)
class _Filling:
    choice: Choice
    variables: Mapping[str, Mapping[str, Any]]
    windows: Mapping[str, str] = field(default_factory=dict)

    def text(self, template: str) -> str:
        return re.sub(r"\$\{?(\w+)\}?", self._value, template)

    def _value(self, found: re.Match[str]) -> str:
        name = found[1]
        if name in self.windows:
            return self.windows[name]
        if name not in self.variables:
            raise KeyError(f"{found[0]} is no variable; there are {sorted(self.variables)}")
        variable = self.variables[name]
        chosen = self.choice.get(name, ALL if variable.get("includeAll") else ())
        if chosen == ALL:
            return str(variable["allValue"])
        values = (chosen,) if isinstance(chosen, str) else tuple(chosen)
        if not values:
            raise KeyError(f"{name} has no 'All': choose a value")
        if not variable.get("multi"):
            return values[0]
        return _matched(values)


def load(name: str) -> dict[str, Any]:
    """A committed dashboard's JSON."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Its panels, those in collapsed rows included; rows themselves are none."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels") or []


def panel_queries(dashboard: Mapping[str, Any], choice: Choice, times: Times) -> list[PanelQuery]:
    """Every query of every panel.

    Args:
        dashboard: Its JSON.
        choice: A value, several, or ALL by variable; ALL for what is left out.
        times: Of the range.

    Raises:
        KeyError: A query names a variable that is none, or one without All has no value.
    """
    filling = _Filling(choice, _variables(dashboard), times.values)
    return [
        PanelQuery(
            _name(dashboard),
            panel["id"],
            panel["title"],
            target["refId"],
            filling.text(target["expr"]),
            target["legendFormat"],
            bool(target.get("instant")),
        )
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def variable_queries(dashboard: Mapping[str, Any], choice: Choice) -> list[VariableQuery]:
    """The queries of a dashboard's variables for their values."""
    filling = _Filling(choice, _variables(dashboard))
    found = []
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        parts = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        if parts is None:
            raise ValueError(
                f"{variable['name']} asks {variable['query']!r}, not label_values(match, label)"
            )
        found.append(
            VariableQuery(_name(dashboard), variable["name"], parts[2], filling.text(parts[1]))
        )
    return found


def annotation_queries(dashboard: Mapping[str, Any], choice: Choice) -> list[AnnotationQuery]:
    """The queries of a dashboard's annotations."""
    filling = _Filling(choice, _variables(dashboard))
    return [
        AnnotationQuery(
            _name(dashboard),
            annotation["name"],
            filling.text(annotation["expr"]),
            annotation["step"],
        )
        for annotation in dashboard["annotations"]["list"]
    ]


def _variables(dashboard: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {variable["name"]: variable for variable in dashboard["templating"]["list"]}


def _name(dashboard: Mapping[str, Any]) -> str:
    return str(dashboard["uid"]).removeprefix("penumbra-")


def _matched(values: Sequence[str]) -> str:
    """As Grafana escapes several choices for a regular expression inside a PromQL string."""
    escaped = [
        _SPECIAL.sub(lambda found: "\\\\" + found[0], value.replace("\\", "\\\\\\\\"))
        for value in values
    ]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


_BORN = "a counter that has no series before the first such event"
_NO_GUARDRAIL = "only rollouts with this guardrail have the signal"

_NO_AA = "no A/A pair has shown this signal yet"

EMPTY_IN_A_HEALTHY_RUN: dict[tuple[str, str, str], str] = {
    ("rollout", "Rollouts", "F"): "no rollout is watched now, so no instrument is in use",
    ("rollout", "Last rollback", "A"): "no candidate was ever rolled back",
    ("rollout", "How long rollbacks took", "A"): "no rollback since the control process began",
    ("rollout", "How long rollbacks took", "B"): "no rollback since the control process began",
    ("rollout", "Rollbacks by actor", "A"): _BORN,
    ("rollout", "Webhook alerts", "A"): _BORN,
    ("rollout", "Propagation of changes", "A"): "nothing was changed in the window",
    ("rollout", "Propagation of changes", "B"): "nothing was changed in the window",
    **{
        ("quality", f"{title}, all slices", ref): _NO_GUARDRAIL
        for title in ("Failed requests", "Slow first bytes", "Slow streams", "Users not content")
        for ref in "ABCDE"
    },
    ("quality", "Displacement, all slices", "E"): _NO_AA,
    ("quality", "Harm, all slices", "E"): _NO_AA,
    ("quality", "Excess of displacement over A/A, by slice", "A"): _NO_AA,
    ("quality", "Excess of harm over A/A, by slice", "A"): _NO_AA,
    ("quality", "Displacement on $slice", "E"): _NO_AA,
    ("quality", "Harm on $slice", "E"): _NO_AA,
    ("quality", "All slices together", "F"): _NO_AA,
    ("quality", "All slices together", "G"): _NO_AA,
    ("quality", "Every slice", "F"): _NO_AA,
    ("quality", "Every slice", "G"): _NO_AA,
    ("quality", "Displacement as measured, without the guard", "B"): "the rollout mirrors no A/A",
    ("quality", "Failed checks", "A"): _BORN,
    ("quality", "Feedback", "A"): "no user judged an answer",
    ("traffic", "Failed attempts of candidates, by slice", "A"): "no candidate has live traffic",
    ("traffic", "Failovers", "A"): _BORN,
    ("traffic", "Errors of the gateway itself", "A"): _BORN,
    ("traffic", "Shed by gateways", "A"): _BORN,
    ("traffic", "Shed by the comparator", "A"): _BORN,
}
"""Queries that may find no series in a healthy run, and why. All others must find some."""
