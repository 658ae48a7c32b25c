"""Simulates promotion: time to proof, false proofs, and trips of the failure process."""

from dataclasses import dataclass

import numpy as np

from benchmarks.sim.lanes import Floats
from benchmarks.sim.traffic import DISPLACEMENT_TOLERANCE, HARM_TOLERANCE, draw
from penumbra.monitoring.stats.betting import bets_for
from penumbra.monitoring.stats.failure import FailureProcess

ALPHA_PROMOTION = 0.05
OBSERVATIONS = 20_000
LARGEST_LOG = 300.0
FAILURE_TOLERANCE, FAILURE_ALPHA = 0.005, 0.002


@dataclass(frozen=True)
class Candidate:
    """Distribution of one stream's observations."""

    name: str
    signal: str
    level: float
    is_null: bool = False
    """At its tolerance: a proof is a false one."""


CANDIDATES = (
    Candidate("harm 0", "harm", 0.0),
    Candidate("harm +.005", "harm", 0.005),
    Candidate("harm +.01", "harm", 0.01),
    Candidate("harm exactly at tolerance (+.02)", "harm", HARM_TOLERANCE, is_null=True),
    Candidate("displacement .015", "displacement", 0.015),
    Candidate("displacement .023", "displacement", 0.023),
    Candidate(
        "displacement exactly at tolerance (.03)", "displacement", DISPLACEMENT_TOLERANCE, True
    ),
)
FAILURE_RATES = (1.0, 0.5, 0.2, 0.05, 0.005)
"""The last is the tolerance itself."""


def prove(candidate: Candidate, reps: int, seed: int) -> Floats:
    """Observations until one stream is proven, in each repetition; infinite if it never is."""
    rng = np.random.default_rng(seed)
    tolerance = HARM_TOLERANCE if candidate.signal == "harm" else DISPLACEMENT_TOLERANCE
    bets = np.array(bets_for(tolerance, 1.0))
    logs = np.zeros((reps, len(bets)))
    first = np.full(reps, np.inf)
    means = np.full(reps, candidate.level)
    for number in range(OBSERVATIONS):
        values, _ = draw(rng, candidate.signal, means)
        logs += np.log1p(-bets * (values - tolerance)[:, None])
        proof = np.exp(np.minimum(logs, LARGEST_LOG)).mean(axis=1)
        first[(proof >= 1.0 / ALPHA_PROMOTION) & np.isinf(first)] = number + 1
        if np.isfinite(first).all():
            break
    return first


def trip(rate: float, reps: int, seed: int) -> Floats:
    """Requests until the shipped failure process trips, in each repetition."""
    rng = np.random.default_rng(seed)
    first = np.full(reps, np.inf)
    for rep in range(reps):
        process = FailureProcess(FAILURE_TOLERANCE, FAILURE_ALPHA)
        failures = (rng.random(OBSERVATIONS) < rate).tolist()
        for number, is_failure in enumerate(failures, start=1):
            if process.observe(is_failure):
                first[rep] = number
                break
    return first
