"""Renders the channels of a rollout: what is released, and what stays on the baseline and why."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text


def channels_table(channels: Iterable[Mapping[str, Any]]) -> Table:
    """Make a table of all channels, one a line."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("slice", "channel", "pairs", "judged by", "released"):
        table.add_column(column, overflow="fold")
    for view in channels:
        table.add_row(
            view["slice"],
            view["channel"],
            str(view["pairs"]),
            ", ".join(view["signals"]) or "-",
            Text("yes", style="green")
            if view["is_released"]
            else Text(f"no: {view['why']}", style="yellow"),
        )
    return table
