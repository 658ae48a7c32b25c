"""Runs a scenario many times and says when each rule rolled back."""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.sim.lanes import Floats, Lanes
from benchmarks.sim.rivals import WINDOW, Rivals
from benchmarks.sim.traffic import (
    ALPHA,
    HARMS,
    HORIZON,
    SLICES,
    Scenario,
    draw,
    spec_of,
)

SHIPPED = "restarting e-process (shipped)"


@dataclass(frozen=True)
class Result:
    """Outcome of one rule in one scenario."""

    reps: int
    fired: int
    """Of the repetitions; in a late regression, those after its beginning."""
    early: int
    """Rolled back before the regression began."""
    median: float
    p90: float
    """Observations from the regression's beginning; infinite where too few rolled back."""


def simulate(
    scenario: Scenario,
    reps: int,
    seed: int,
    *,
    horizon: int = HORIZON,
    has_rivals: bool = True,
    alpha: float = ALPHA,
) -> dict[str, Floats]:
    """When each rule first rolled back in each repetition; infinite if never.

    Args:
        scenario: The candidate.
        reps: Repetitions.
        seed: The same figures come of the same seed.
        horizon: Observations.
        has_rivals: Whether the other rules run on the same observations.
        alpha: Of the shipped rule.
    """
    rng = np.random.default_rng(seed)
    spec = replace(spec_of(scenario.signal), alpha=alpha)
    lanes = Lanes(spec, reps, HARMS if scenario.signal == "harm" else None)
    rivals = Rivals(reps, spec.default_tolerance, scenario.signal)
    tripped = np.full(reps, np.inf)
    for start in range(0, horizon, WINDOW):
        slices = rng.integers(0, SLICES, (min(WINDOW, horizon - start), reps))
        values, codes = draw(rng, scenario.signal, scenario.means(start, slices))
        if np.isinf(tripped).any():
            for number in range(len(slices)):
                code = None if codes is None else codes[number]
                evidence = lanes.observe(slices[number], values[number], code)
                is_new = (evidence >= 1.0 / spec.alpha) & np.isinf(tripped)
                tripped[is_new] = start + number + 1
        if has_rivals:
            rivals.observe(start, slices, values)
        firsts = [tripped, *(rivals.first.values() if has_rivals else ())]
        if all(np.isfinite(first).all() for first in firsts):
            break
    return {SHIPPED: tripped, **(rivals.first if has_rivals else {})}


def result_of(first: Floats, begins: int) -> Result:
    """Sum up the repetitions of one rule."""
    late = first[first > begins] - begins
    return Result(
        reps=len(first),
        fired=int(np.isfinite(late).sum()),
        early=int((first <= begins).sum()),
        median=_quantile(late, 0.5),
        p90=_quantile(late, 0.9),
    )


def _quantile(values: Floats, part: float) -> float:
    return float(np.quantile(values, part, method="higher")) if len(values) else float("inf")
