"""Texts of the figures and times of rollouts, for a terminal."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

Json = Mapping[str, Any]


def effect_text(effect: Json) -> str:
    """`json: .0590 (.0300 to .0920) over the last 2648 of 103000, tolerance .0200`."""
    where, mean = effect["slice"] or "all slices", number_text(effect["mean"])
    interval = f"{number_text(effect['lower'])} to {number_text(effect['upper'])}"
    pairs = f"the last {effect['since_pairs']} of {effect['pairs']}"
    return (
        f"{where}: {mean} ({interval}) over {pairs}, tolerance {number_text(effect['tolerance'])}"
    )


def rollback_text(rollback: Json) -> Text:
    """Time and duration of a rollback."""
    text = Text("rolled back ", style="bold red")
    text.append(f"at {clock(rollback['at'])} in epoch {rollback['epoch']}", "not bold default")
    times = times_text(rollback)
    return text + Text(f": {times}" if times else "")


def times_text(rollback: Json) -> str:
    """The milliseconds of a rollback, as far as they are known."""
    durable = rollback["observed_to_durable_ms"]
    acknowledged = rollback["durable_to_acknowledged_ms"]
    parts = []
    if durable is not None:
        parts.append(f"{durable:.1f} ms from the deciding observation to durable")
    if acknowledged is not None:
        whole = f", {durable + acknowledged:.1f} ms in all" if durable is not None else ""
        parts.append(
            f"{acknowledged:.1f} ms more until all {rollback['gateways']} gateways"
            f" had acknowledged{whole}"
        )
    else:
        parts.append("not every gateway has acknowledged yet")
    return "; ".join(parts)


def clock(at: str) -> str:
    """`2026-03-01 12:00:00`."""
    return at[:19].replace("T", " ")


def interval_text(stream: Json) -> str:
    """`.0300 to .0920`, or `-`."""
    if stream["lower"] is None or stream["upper"] is None:
        return "-"
    return f"{number_text(stream['lower'])} to {number_text(stream['upper'])}"


def number_text(value: float | None) -> str:
    """Four decimals, or `-`."""
    return "-" if value is None else f"{value:.4f}"


def age_text(at: str) -> str:
    """`3 min`: the time since `at`."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
