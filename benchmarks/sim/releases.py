"""Simulates the release of slices, one by one: false releases, and pairs until they are proven."""

from dataclasses import dataclass

import numpy as np

from benchmarks.sim.lanes import Floats
from benchmarks.sim.promotion import ALPHA_PROMOTION, LARGEST_LOG
from benchmarks.sim.traffic import HARM_TOLERANCE, HARMS, HORIZON, draw
from penumbra.monitoring.stats.betting import BETS, bets_for
from penumbra.monitoring.stats.release import share_of_run

ALONE, FAMILY, EQUAL = "each slice alone", "family (shipped)", "each at K / alpha"
RULES = (ALONE, FAMILY, EQUAL)
SLICE_PAIRS = 300
"""Pairs of a slice before it may be released: the default of `gates.slice_pairs`."""


@dataclass(frozen=True)
class Build:
    """A candidate: the mean harm of each slice, and the slices' shares of the traffic."""

    name: str
    means: tuple[float, ...]
    shares: tuple[float, ...]

    @property
    def bad(self) -> np.ndarray:
        """Numbers of the slices whose release is a false one."""
        return np.flatnonzero(np.array(self.means) >= HARM_TOLERANCE)


def _equal(name: str, count: int, mean: float, bad: int = 0) -> Build:
    means = (HARM_TOLERANCE,) * bad + (mean,) * (count - bad)
    return Build(name, means, (1.0 / count,) * count)


BUILDS = (
    _equal("20 equal slices, all exactly at tolerance", 20, 0.0, bad=20),
    _equal("20 equal slices, half of them at tolerance, the others 0", 20, 0.0, bad=10),
    _equal("6 equal slices, all exactly at tolerance", 6, 0.0, bad=6),
    _equal("6 equal slices, harm 0", 6, 0.0),
    _equal("6 equal slices, harm +.005", 6, 0.005),
    _equal("20 equal slices, harm 0", 20, 0.0),
    _equal("20 equal slices, harm +.005", 20, 0.005),
    _equal("6 equal slices with traffic, 2 without, harm 0", 6, 0.0),
)
SILENT = {BUILDS[-1].name: 2}
"""Slices of a model that have no traffic."""


def release(build: Build, reps: int, seed: int, horizon: int = HORIZON) -> dict[str, Floats]:
    """Play one build many times.

    Returns:
        Rule -> pairs of all slices after which each slice was released, shape (reps, slices);
        infinite where it never was.
    """
    rng = np.random.default_rng(seed)
    count, silent = len(build.means), SILENT.get(build.name, 0)
    bets = np.array(bets_for(HARM_TOLERANCE, 1.0))
    factors = np.log1p(-bets * (np.array(HARMS)[:, None] - HARM_TOLERANCE))
    means, bar, lanes = np.array(build.means), 1.0 / ALPHA_PROMOTION, np.arange(reps)
    logs, seen = np.zeros((reps, count, BETS)), np.zeros((reps, count))
    proofs = np.ones((reps, count))
    first = {rule: np.full((reps, count), np.inf) for rule in RULES}
    bars = {ALONE: bar, EQUAL: bar * (count + silent)}
    for number in range(1, horizon + 1):
        slices = rng.choice(count, reps, p=build.shares)
        _, codes = draw(rng, "harm", means[slices])
        logs[lanes, slices] += factors[codes]
        seen[lanes, slices] += 1
        value = np.exp(np.minimum(logs[lanes, slices], LARGEST_LOG)).mean(axis=1)
        has_enough = seen[lanes, slices] >= SLICE_PAIRS
        proofs[lanes, slices] = np.where(has_enough, value, np.minimum(value, 1.0))
        for rule, boundary in bars.items():
            is_new = (proofs >= boundary) & np.isinf(first[rule])
            first[rule][is_new] = number
        waits = np.isinf(first[FAMILY])
        missing = (np.maximum(0.0, bar - proofs) * waits).sum(axis=1) + silent * (bar - 1.0)
        first[FAMILY][waits & (proofs >= (bar + missing)[:, None])] = number
        if all(np.isfinite(found).all() for found in first.values()):
            break
    return first


RUNS = 20
RUN_PAIRS = 5_000
AFRESH, SHARED = "each run afresh", "runs share alpha (shipped)"
REARMED = (HARM_TOLERANCE, 0.025)
"""Mean harm of the slice that is armed again and again; both are beyond tolerance."""


def rearm(mean: float, reps: int, seed: int) -> dict[str, Floats]:
    """Play one slice of one build in `RUNS` runs of `RUN_PAIRS` pairs each.

    Returns:
        Rule -> number of the first run that proves it, shape (reps,); infinite if none does.
    """
    rng = np.random.default_rng(seed)
    bets = np.array(bets_for(HARM_TOLERANCE, 1.0))
    factors = np.log1p(-bets * (np.array(HARMS)[:, None] - HARM_TOLERANCE))
    first = {rule: np.full(reps, np.inf) for rule in (AFRESH, SHARED)}
    means = np.full(reps, mean)
    for run in range(RUNS):
        bars = {
            AFRESH: 1.0 / ALPHA_PROMOTION,
            SHARED: 1.0 / ALPHA_PROMOTION / share_of_run(run),
        }
        logs = np.zeros((reps, BETS))
        for number in range(RUN_PAIRS):
            _, codes = draw(rng, "harm", means)
            logs += factors[codes]
            if number + 1 < SLICE_PAIRS:
                continue
            proofs = np.exp(np.minimum(logs, LARGEST_LOG)).mean(axis=1)
            for rule, bar in bars.items():
                first[rule][(proofs >= bar) & np.isinf(first[rule])] = run + 1
    return first
