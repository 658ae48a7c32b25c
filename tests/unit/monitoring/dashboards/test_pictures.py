from typing import Any

import pytest

from scripts.pictures.answers import page_input
from scripts.pictures.browser import CELL_PIXELS, HEAD_PIXELS, height_of

EMPTY = {"resultType": "vector", "result": []}


def dashboard(title: str = "X") -> dict[str, Any]:
    place = {"x": 0, "y": 1, "w": 24, "h": 8}
    below = {"x": 0, "y": 9, "w": 24, "h": 1}
    return {
        "uid": "penumbra-test",
        "panels": [
            {"id": 1, "type": "row", "title": "row", "gridPos": {**place, "y": 0, "h": 1}},
            {"id": 2, "type": "stat", "title": title, "gridPos": place},
            {"id": 3, "type": "row", "title": "closed", "gridPos": below, "collapsed": True},
        ],
        "templating": {"list": [{"name": name, "type": "query"} for name in ("model", "slice")]},
    }


def kept() -> dict[str, Any]:
    return {
        "range": {"from": 0, "to": 1000, "step": 1000},
        "dashboards": {
            "test": {"choice": {"model": "demo"}, "panels": {"X": {"A": EMPTY}}, "marks": []}
        },
    }


def test_page_gets_answers_by_panel_and_says_what_was_chosen() -> None:
    found = page_input(dashboard(), kept())
    assert found["answers"] == {2: {"A": EMPTY}}
    assert found["choice"] == {"model": "demo", "slice": "All"}


def test_results_of_another_version_are_refused() -> None:
    with pytest.raises(KeyError, match="no panel 'New'"):
        page_input(dashboard("New"), kept())


def test_closed_rows_take_no_room() -> None:
    assert height_of(dashboard()) == HEAD_PIXELS + 9 * CELL_PIXELS
