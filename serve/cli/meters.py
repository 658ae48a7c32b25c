"""Draws bars and plots of evidence in a terminal, on a log scale since evidence is a product."""

import math
from collections.abc import Sequence

_FULL, _EMPTY = "█", "░"
_PARTS = "▏▎▍▌▋▊▉"
_DOT = "●"


def progress(evidence: float, boundary: float) -> float:
    """Progress of evidence from 1 (none) to the boundary, on a log scale, 0 to 1.

    Args:
        evidence: At least 0; below 1 there is more against than for it.
        boundary: More than 1.
    """
    if evidence >= boundary:
        return 1.0
    if evidence <= 1:
        return 0.0
    return math.log(evidence) / math.log(boundary)


def bar(share: float, width: int = 12) -> str:
    """A bar that is filled to a share."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    if share < 1:
        eighths = min(eighths, width * 8 - 1)  # Full means reached.
    whole, rest = divmod(eighths, 8)
    text = _FULL * whole + (_PARTS[rest - 1] if rest else "")
    return text + _EMPTY * (width - len(text))


def plot(
    path: Sequence[tuple[int, float]], boundary: float, width: int = 60, height: int = 10
) -> list[str]:
    """The path of the evidence under its boundary, as lines of text.

    Args:
        path: (observations, evidence), in order of the observations; at least one.
        boundary: The evidence at which the guard acts.
        width: Columns for the observations.
        height: Rows between the least power of ten shown and the boundary.
    """
    floor = min(0.0, math.floor(min(math.log10(max(value, 1e-3)) for _, value in path)))
    top = math.log10(boundary)
    first, last = path[0][0], max(path[-1][0], path[0][0] + 1)
    rows = [[" "] * width for _ in range(height + 2)]
    rows[1] = ["╌"] * width
    for count, value in path:
        column = round((count - first) / (last - first) * (width - 1))
        rows[_row(value, floor, top, height)][column] = _DOT
    labels = {1: _short(boundary), height + 1: _short(10**floor)}
    if floor < 0:
        labels.setdefault(_row(1.0, floor, top, height), "1")
    margin = max(map(len, labels.values()))
    lines = [
        f"{labels.get(index, ''):>{margin}} ┤{''.join(row)}".rstrip()
        for index, row in enumerate(rows)
    ]
    end = f"{last} observations"
    axis = f"{first}{end:>{max(1, width - len(str(first)))}}"
    return [*lines, f"{'':>{margin}} └{'─' * width}", f"{'':>{margin}}  {axis}"]


def _row(value: float, floor: float, top: float, height: int) -> int:
    """0 is over the boundary, 1 on it, `height + 1` the floor."""
    height_of = (math.log10(max(value, 10**floor)) - floor) / (top - floor)
    if height_of >= 1:
        return 0 if height_of > 1 else 1
    return min(height + 1, 2 + int((1 - height_of) * height))


def _short(value: float) -> str:
    return f"{value:.4g}" if value >= 1 else f"{value:g}"
