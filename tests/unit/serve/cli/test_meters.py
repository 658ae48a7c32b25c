"""Bars and plots of evidence: full means reached, and the boundary is where it should be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.serve.cli.meters import bar, plot, progress


@pytest.mark.parametrize(
    ("evidence", "share"),
    [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (10.0, 0.5), (99.99, 0.99998), (100.0, 1.0), (1e9, 1.0)],
)
def test_progress_is_on_a_log_scale_from_none_to_the_boundary(
    evidence: float, share: float
) -> None:
    assert progress(evidence, 100.0) == pytest.approx(share, abs=1e-4)


@given(st.floats(0, 1), st.integers(1, 40))
def test_bar_has_its_width_and_is_full_only_when_reached(share: float, width: int) -> None:
    text = bar(share, width)
    assert len(text) == width
    assert (text == "█" * width) == (share == 1)


def test_bar_fills_in_eighths() -> None:
    assert bar(0.0, 4) == "░░░░"
    assert bar(0.5, 4) == "██░░"
    assert bar(0.53125, 4) == "██▏░"


def test_plot_shows_evidence_rising_to_its_boundary() -> None:
    lines = plot([(1, 1.0), (10, 10.0), (20, 100.0), (30, 1200.0)], 1000.0, width=30, height=6)
    assert lines[0].strip().endswith("●")
    assert lines[0].index("●") > lines[1].index("╌")
    assert lines[1].startswith("1000 ┤╌")
    assert lines[7].startswith("   1 ┤●")
    assert lines[-1].split() == ["1", "30", "observations"]


def test_plot_keeps_what_is_below_the_boundary_below_it() -> None:
    lines = plot([(1, 1.0), (2, 999.0)], 1000.0, width=10, height=5)
    assert "●" not in lines[0] + lines[1]


@given(
    st.lists(st.floats(0, 1e12, allow_nan=False), min_size=1, max_size=50),
    st.floats(1.01, 1e6),
)
def test_plot_draws_any_path_within_its_frame(values: list[float], boundary: float) -> None:
    path = list(enumerate(values, start=1))
    lines = plot(path, boundary, width=40, height=8)
    assert len(lines) == 12
    margin = lines[1].index("┤") + 1
    assert all(len(line) <= margin + 40 for line in lines[:10])
    assert sum(line.count("●") for line in lines) >= min(1, math.ceil(len(values)))
