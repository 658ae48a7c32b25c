"""Parts that all four dashboards share: variables, annotations, links, rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard

from penumbra.monitoring.dashboards.options import ORANGE, RED
from penumbra.monitoring.dashboards.panels import SOURCE
from penumbra.monitoring.dashboards.promql import Scope, largest
from penumbra.monitoring.telemetry import control, gateway
from penumbra.monitoring.telemetry.metric import Metric

TAG = "penumbra"
ALL = ".+"
"""Value that Grafana puts in for the choice "All"."""
Panel = timeseries.Panel | stat.Panel | table.Panel


@dataclass(frozen=True, slots=True)
class Variable:
    """A drop-down list of label values, read from a metric that always has them."""

    name: str
    metric: Metric
    is_many: bool = True
    """Several may be chosen, or all."""

    @property
    def query(self) -> str:
        """`label_values(...)`, narrowed by the chosen models."""
        models = "" if self.name == "model" else '{model=~"$model"}'
        return f"label_values({self.metric.name}{models}, {self.name})"


MODEL = Variable("model", control.VARIANT_INFO)
VARIANT = Variable("variant", control.VARIANT_INFO)
CANDIDATE = Variable("candidate", control.SHARE)
SLICE = Variable("slice", gateway.REQUESTS)
ONE_MODEL = Variable("model", control.VARIANT_INFO, is_many=False)
ONE_CANDIDATE = Variable("candidate", control.SHARE, is_many=False)
STREAMS = Variable("slice", control.RUN_PAIRS)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right."""

    title: str
    panels: Sequence[Panel]
    is_collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard before it is drawn."""

    name: str
    """File name without suffix; the uid is `penumbra-<name>`."""
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]


def draw(board: Board, runbooks: str) -> dashboard.Dashboard:
    """Build the dashboard that Grafana reads.

    Args:
        board: Its variables and rows.
        runbooks: URL of the folder with docs/runbooks, without a slash at its end.
    """
    builder = (
        boards.Dashboard(f"Penumbra / {board.title}")
        .uid(f"penumbra-{board.name}")
        .description(board.description)
        .tags([TAG])
        .readonly()
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .variables(
            [
                boards.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
                *(_variable(variable) for variable in board.variables),
                boards.ConstantVariable("runbooks").value(runbooks),
            ]
        )
        .annotations(_annotations(board))
        .link(
            boards.DashboardLink("Penumbra")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            # Without the variables: "All" means nothing to the dashboard that is of one candidate.
            .keep_time(True)
        )
    )
    for row in board.rows:
        _add_row(builder, row)
    return _number_panels(builder.build())


def _variable(variable: Variable) -> boards.QueryVariable:
    builder = (
        boards.QueryVariable(variable.name)
        .label(variable.name.capitalize())
        .datasource(SOURCE)
        .query(variable.query)
        .definition(variable.query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(variable.is_many)
        .include_all(variable.is_many)
    )
    if variable.is_many:
        everything = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
        builder.all_value(ALL).current(everything)
    return builder


def _annotations(board: Board) -> list[Builder[dashboard.AnnotationQuery]]:
    """Marks of changes; a series' value is the time of the change, which its scrape is not."""
    scope = Scope(tuple(variable.name for variable in board.variables))
    began = largest("model, candidate", scope.pick(control.SINCE))
    phase = largest("model, candidate, phase", f"{scope.pick(control.PHASE)} == 1")
    rolled_back = largest("model, candidate", scope.pick(control.LAST_ROLLBACK))
    return [
        _mark(
            "Stage changes",
            ORANGE,
            "{{phase}}",
            f"{phase} * on (model, candidate) group_left () {began} * 1000",
        ),
        _mark("Rollbacks", RED, "rolled back", f"{rolled_back} * 1000"),
    ]


def _mark(name: str, color: str, title: str, expr: str) -> boards.AnnotationQuery:
    return (
        boards.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expr)
        .step("10s")
        .use_value_for_time(True)
        .title_format(title)
        .text_format("{{model}}: {{candidate}}")
    )


def _add_row(builder: boards.Dashboard, row: Row) -> None:
    heading = boards.Row(row.title)
    if not row.is_collapsed:
        builder.with_row(heading)
        for panel in row.panels:
            builder.with_panel(panel)
        return
    for panel in row.panels:
        heading.with_panel(panel)
    builder.with_row(heading.collapsed(True))


def _number_panels(board: dashboard.Dashboard) -> dashboard.Dashboard:
    number = 0
    for panel in board.panels or []:
        inside = panel.panels if isinstance(panel, dashboard.RowPanel) else []
        for numbered in (panel, *inside):
            number += 1
            numbered.id_val = number
    return board
