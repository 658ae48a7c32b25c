"""The simulations run many guards at once; each must be the shipped guard."""

import numpy as np
import pytest

from benchmarks.sim.lanes import Lanes
from benchmarks.sim.promotion import ALPHA_PROMOTION, CANDIDATES, OBSERVATIONS, prove
from benchmarks.sim.traffic import HARM_TOLERANCE, HARMS, draw
from penumbra.monitoring.stats.guard import Guard, GuardSpec

REPS, STEPS = 3, 1500
SPEC = GuardSpec(
    tolerances={"a": 0.02, "b": 0.05, "c": 0.3},
    default_tolerance=0.02,
    low=-1.0,
    high=1.0,
    alpha=0.01,
    horizon=20_000,
    shares={"a": 0.7},
)


@pytest.mark.parametrize("is_looked_up", [True, False])
@pytest.mark.parametrize("level", [0.0, 0.2, 0.9])
def test_lanes_are_guards_observation_by_observation(level: float, is_looked_up: bool) -> None:
    rng = np.random.default_rng(7)
    names = list(SPEC.tolerances)
    guards = [Guard(SPEC) for _ in range(REPS)]
    lanes = Lanes(SPEC, REPS, HARMS if is_looked_up else None)
    for _ in range(STEPS):
        slices = rng.integers(0, len(names), REPS)
        values, codes = draw(rng, "harm", np.full(REPS, level))
        found = lanes.observe(slices, values, codes)
        for guard, number, value, evidence in zip(guards, slices, values, found, strict=True):
            guard.observe(names[number], float(value))
            assert evidence == pytest.approx(guard.evidence, rel=1e-9)


def test_lanes_of_continuous_observations_are_guards() -> None:
    rng = np.random.default_rng(8)
    spec = GuardSpec({"a": 0.03}, 0.03, low=0.0, high=1.0, alpha=0.01)
    guard, lanes = Guard(spec), Lanes(spec, 1)
    for _ in range(STEPS):
        values, _ = draw(rng, "displacement", np.array([0.04]))
        found = lanes.observe(np.array([0]), values)
        guard.observe("a", float(values[0]))
        assert found[0] == pytest.approx(guard.evidence, rel=1e-9)


def test_proofs_of_the_simulation_are_the_guards() -> None:
    candidate, seed = CANDIDATES[0], 9
    first = prove(candidate, 1, seed)[0]
    rng = np.random.default_rng(seed)
    spec = GuardSpec({"a": HARM_TOLERANCE}, HARM_TOLERANCE, low=-1.0, high=1.0, alpha=0.01)
    guard, number = Guard(spec), 0
    while guard.slice("a").proof < 1.0 / ALPHA_PROMOTION and number < OBSERVATIONS:
        values, _ = draw(rng, candidate.signal, np.array([candidate.level]))
        guard.observe("a", float(values[0]))
        number += 1
    assert first == number
