"""Builds panels for Grafana: charts, numbers and tables, from options and queries."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import common as parts
from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from penumbra.monitoring.dashboards.options import (
    COUNT,
    GREEN,
    LABEL_WIDTHS,
    LINES,
    NONE,
    SMALL,
    About,
    Column,
    Look,
    Query,
    Steps,
)

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOKS = "${runbooks}"

Properties = list[dashboard.DynamicConfigValue]
P = TypeVar("P", timeseries.Panel, stat.Panel, table.Panel)
Mappings = list[
    dashboard.ValueMap | dashboard.RangeMap | dashboard.RegexMap | dashboard.SpecialValueMap
]


def chart(
    about: About, queries: Sequence[Query], unit: str, look: Look = LINES, width: int = 12
) -> timeseries.Panel:
    """A time series panel."""
    panel = (
        _describe(timeseries.Panel(), about, width, 8)
        .unit(unit)
        .line_width(1)
        .fill_opacity(70 if look.is_stacked else 0)
        .show_points(common.VisibilityMode.AUTO)
        .span_nulls(False)
        .legend(
            parts.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            parts.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .thresholds(_steps(look.limit))
        .targets([_target(query, index) for index, query in enumerate(queries)])
    )
    if look.limit:
        panel.thresholds_style(
            parts.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    _set_axes(panel, look)
    if look.maximum is None and unit in SMALL:
        panel.axis_soft_max(SMALL[unit])
    _highlight(panel, look)
    return panel


def number(
    about: About,
    queries: Sequence[Query],
    unit: str,
    steps: Steps = NONE,
    words: Mapping[str, tuple[str, str]] | None = None,
    width: int = 4,
) -> stat.Panel:
    """A panel of big numbers: each query's value now."""
    panel = (
        _describe(stat.Panel(), about, width, 4)
        .unit(unit)
        .thresholds(_steps(steps))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .no_value("no data")
        .reduce_options(parts.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets([_target(query, index, is_now=True) for index, query in enumerate(queries)])
    )
    if words:
        panel.mappings(_mappings(words))
    return panel


def rows(
    about: About, keys: Sequence[str], columns: Sequence[Column], width: int = 24, height: int = 8
) -> table.Panel:
    """A table of values now: one row for each combination of the labels `keys`."""
    panel = (
        _describe(table.Panel(), about, width, height)
        .unit(COUNT)
        .min_width(60)
        .cell_height(common.TableCellHeight.SM)
        .targets(
            [
                _target(Query(column.query, column.name), index, is_now=True).format(
                    PromQueryFormat.TABLE
                )
                for index, column in enumerate(columns)
            ]
        )
    )
    shown = {_value(index, columns): column for index, column in enumerate(columns)}
    order = [*keys, *(value for value, column in shown.items() if column.name)]
    organize = {
        "excludeByName": {"Time": True}
        | {name: True for name, column in shown.items() if not column.name},
        "indexByName": {name: index for index, name in enumerate(order)},
        "renameByName": {name: column.name for name, column in shown.items() if column.name},
    }
    panel.transformations(
        [
            dashboard.DataTransformerConfig(id_val="merge", options={}),
            dashboard.DataTransformerConfig(id_val="organize", options=organize),
        ]
    )
    for column in columns:
        if column.name:
            panel.override_by_name(column.name, _cell_properties(column))
    for key in keys:
        if key in LABEL_WIDTHS:
            panel.override_by_name(key, [_property("custom.width", LABEL_WIDTHS[key])])
    return panel


def _describe(panel: P, about: About, width: int, height: int) -> P:
    panel.title(about.title).description(about.help).datasource(SOURCE).span(width).height(height)
    if about.runbook:
        link = boards.DashboardLink(f"Runbook: {about.runbook}")
        link.type(dashboard.DashboardLinkType.LINK).url(f"{RUNBOOKS}/penumbra-{about.runbook}.md")
        panel.links([link.target_blank(True)])
    return panel


def _target(query: Query, index: int, is_now: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend)
    target.datasource(SOURCE).ref_id(_ref(index))
    return target.instant() if is_now else target.range()


def _set_axes(panel: timeseries.Panel, look: Look) -> None:
    if look.minimum is not None:
        panel.min(look.minimum)
    if look.maximum is not None:
        panel.max(look.maximum)
    if look.decimals is not None:
        panel.decimals(look.decimals)
    if look.has_steps:
        panel.line_interpolation(common.LineInterpolation.STEP_AFTER)
    if look.is_stacked:
        panel.stacking(parts.StackingConfig().mode(common.StackingMode.NORMAL))


def _highlight(panel: timeseries.Panel, look: Look) -> None:
    for pattern, color in look.colors.items():
        panel.override_by_regexp(
            pattern, [_property("color", {"mode": "fixed", "fixedColor": color})]
        )
    if look.dashed:
        style = {"fill": "dash", "dash": [8, 6]}
        panel.override_by_regexp(
            look.dashed, [_property("custom.lineStyle", style), _property("custom.fillOpacity", 0)]
        )
    if look.band:
        upper, lower = look.band
        panel.override_by_name(
            upper, [_property("custom.fillBelowTo", lower), _property("custom.fillOpacity", 20)]
        )
        panel.override_by_name(lower, [_property("custom.fillOpacity", 0)])


def _cell_properties(column: Column) -> Properties:
    properties = [_property("unit", column.unit)]
    if column.decimals is not None:
        properties.append(_property("decimals", column.decimals))
    if column.words:
        properties.append(_property("mappings", _mappings(column.words)))
    if column.steps:
        properties.append(_property("thresholds", _steps(column.steps).build()))
    if column.steps or any(color for _, color in column.words.values()):
        properties.append(_property("custom.cellOptions", {"type": "color-text"}))
    return properties


def _steps(steps: Steps) -> boards.ThresholdsConfig:
    """Green below the first step; a chart's limits and a cell's colours alike."""
    return (
        boards.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps(
            [
                dashboard.Threshold(value=None, color=GREEN),
                *(dashboard.Threshold(value=value, color=color) for value, color in steps),
            ]
        )
    )


def _mappings(words: Mapping[str, tuple[str, str]]) -> Mappings:
    return [
        dashboard.ValueMap(
            options={
                value: dashboard.ValueMappingResult(text=text, color=color or None, index=index)
                for index, (value, (text, color)) in enumerate(words.items())
            }
        )
    ]


def _property(name: str, value: object) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val=name, value=value)


def _ref(index: int) -> str:
    return chr(ord("A") + index)


def _value(index: int, columns: Sequence[Column]) -> str:
    """The name that Grafana gives the values of a query in table form."""
    return f"Value #{_ref(index)}" if len(columns) > 1 else "Value"
