"""The simulated candidates and their traffic."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.sim.lanes import Floats, Ints
from penumbra.monitoring.stats.guard import GuardSpec

SLICES = 20
HORIZON = 100_000
ALPHA = 0.01
HARM_TOLERANCE = 0.02
DISPLACEMENT_TOLERANCE = 0.03
FLIPS = 0.02
"""Pairs that go the wrong way, and as many the right way, without any difference of the builds."""
CONCENTRATION = 20.0
"""Of the beta distribution of displacement over requests."""
HARMS = (-1.0, 0.0, 1.0)
HEALTHY = {"harm": 0.005, "displacement": 0.023}

Means = Callable[[Ints], Floats]
"""Slice numbers -> mean of the observation."""


@dataclass(frozen=True)
class Scenario:
    """A candidate, and when it gets worse."""

    name: str
    signal: str
    """`harm` or `displacement`."""
    level: float
    """Mean of the observation where the candidate is bad."""
    is_one_slice: bool = False
    """Bad in the first slice only; healthy elsewhere."""
    begins: int = 0
    """Observations before it gets bad; healthy until then."""
    is_null: bool = False
    """Within tolerance: a rollback is a false one."""

    def means(self, first: int, slices: Ints) -> Floats:
        """Means of the observations `first`, `first + 1`, ...; shape of the slices: (n, reps)."""
        healthy = HEALTHY[self.signal]
        bad = np.full(slices.shape, self.level)
        if self.is_one_slice:
            bad = np.where(slices == 0, self.level, healthy)
        number = first + np.arange(len(slices))
        return np.where((number >= self.begins)[:, None], bad, healthy)


def spec_of(signal: str) -> GuardSpec:
    """The guard of the tables: twenty slices of 5 %, one signal with all of alpha."""
    tolerance = HARM_TOLERANCE if signal == "harm" else DISPLACEMENT_TOLERANCE
    return GuardSpec(
        tolerances={f"s{number:02}": tolerance for number in range(SLICES)},
        default_tolerance=tolerance,
        low=-1.0 if signal == "harm" else 0.0,
        high=1.0,
        alpha=ALPHA,
        horizon=HORIZON,
    )


def draw(rng: np.random.Generator, signal: str, means: Floats) -> tuple[Floats, Ints | None]:
    """Observations with these means, and their indices in `HARMS` if they are harms."""
    if signal == "displacement":
        return rng.beta(means * CONCENTRATION, (1.0 - means) * CONCENTRATION), None
    chance = rng.random(means.shape)
    up = np.minimum(FLIPS + np.maximum(means, 0.0), 1.0 - FLIPS)
    codes = np.where(chance < up, 2, np.where(chance < up + FLIPS, 0, 1))
    return np.array(HARMS)[codes], codes


NULLS = (
    Scenario("A/A (mean 0)", "harm", 0.0, is_null=True),
    Scenario("within tolerance (+.005)", "harm", 0.005, is_null=True),
    Scenario("exactly at tolerance (+.02)", "harm", HARM_TOLERANCE, is_null=True),
)
REGRESSIONS = (
    *(Scenario(f"all traffic +{level:.2f}", "harm", level) for level in (0.05, 0.1, 0.3, 0.9)),
    *(
        Scenario(f"one 5 % slice +{level:.2f}", "harm", level, is_one_slice=True)
        for level in (0.1, 0.3, 0.9)
    ),
    *(
        Scenario(f"from 50k on, all +{level:.2f}", "harm", level, begins=50_000)
        for level in (0.05, 0.1)
    ),
    Scenario("from 50k on, one slice +0.30", "harm", 0.3, is_one_slice=True, begins=50_000),
)
DISPLACEMENTS = (
    Scenario("healthy (.023)", "displacement", 0.023, is_null=True),
    Scenario("exactly at tolerance (.03)", "displacement", DISPLACEMENT_TOLERANCE, is_null=True),
    *(Scenario(f"all traffic at {level}", "displacement", level) for level in (0.04, 0.081, 0.289)),
    *(
        Scenario(f"one 5 % slice at {level}", "displacement", level, is_one_slice=True)
        for level in (0.04, 0.081, 0.289)
    ),
)
