"""Options of panels as data: title and help, queries, looks, columns, colours and units."""

from collections.abc import Mapping
from dataclasses import dataclass, field

GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"
GRAY, PALE_BLUE, PURPLE, YELLOW = "#8e8e8e", "super-light-blue", "purple", "yellow"

SIGNAL_COLORS = {
    f"/(^|: ){signal}/": color
    for signal, color in {
        "displacement": BLUE,
        "harm": ORANGE,
        "failure": RED,
        "ttft": PURPLE,
        "tpot": YELLOW,
        "feedback": GREEN,
    }.items()
}
"""A signal and its boundary have one colour."""
NATS = "suffix:nats"
TOKENS = "suffix:tokens/s"
COUNT = "none"
"""Unit of plain numbers: 1950, not 2 K."""
SMALL = {"percentunit": 0.01, COUNT: 1, "reqps": 1, "cps": 1}
"""Unit -> least end of the axis: where all values are 0, Grafana would choose a hundred."""
LABEL_WIDTHS = {"part": 220, "signal": 110, "verdict": 110, "phase": 110}
"""Pixels of the columns of labels with long values."""
Steps = tuple[tuple[float, str], ...]
NONE: Steps = ()
MUST_BE_ZERO: Steps = ((1, RED),)


@dataclass(frozen=True, slots=True)
class About:
    """Title, help and runbook of a panel."""

    title: str
    help: str
    """One or two sentences that say how to read it."""
    runbook: str = ""
    """Name of the page in docs/runbooks, without `penumbra-`, where an alert watches the same."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query and the legend of its series (in a table: the name of its column)."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Differences of a chart from plain lines from 0 upwards."""

    minimum: float | None = 0
    maximum: float | None = None
    decimals: int | None = None
    has_steps: bool = False
    """For states: hold a value until the next one."""
    is_stacked: bool = False
    colors: Mapping[str, str] = field(default_factory=dict)
    """By regular expression of the series' names."""
    dashed: str = ""
    """Regular expression of the series that are limits and not measurements."""
    band: tuple[str, str] | None = None
    """Names of the upper and the lower end of an interval: the space between is filled."""
    limit: Steps = NONE
    """Lines across the chart, by where they begin."""


LINES = Look()


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One query's column of a table."""

    query: str
    name: str
    """Empty: the query is there for its labels."""
    unit: str = COUNT
    decimals: int | None = None
    words: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Text and colour by value."""
    steps: Steps = NONE
    """The cell is coloured from these values on."""
