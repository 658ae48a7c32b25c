"""Table of workloads that move: how often and when they are said to have left their profile.

    python -m benchmarks.sim.workloads [--reps 100] [--seed 7]

Drives the shipped `Workload` with the scripts of one slice of six. A profile has as many pairs as
`LEAST_PAIRS`, or ten times as many. Exits with 1 if an equal workload is said to have moved more
often than chance gives to the promised rate.
"""

import argparse
import sys
from collections.abc import Iterator
from statistics import median

import numpy as np

from benchmarks.sim.bounds import chance_of_at_most, upper_bound
from benchmarks.sim.tables import table
from penumbra.deployments.evidence.workload import ALPHA, LEAST_PAIRS, Workload
from penumbra.deployments.rollouts.spec import AdvanceRules
from penumbra.monitoring.observations import Pair

SLICES = tuple("abcdef")
SCRIPTS = ("latin", "none", "han", "cyrillic", "arabic")
THEN = np.array([0.7, 0.2, 0.04, 0.03, 0.03])
MOVES = (0.0, 0.1, 0.15, 0.25, 0.3, 0.4, 0.6)
"""Parts of the traffic that move from Latin to Chinese."""
PAIRS = 20_000
"""Pairs of the slice that are looked at, after its proof."""
_UNLIKELY = 1e-3


def pairs_until_left(moved: float, profile: int, rng: np.random.Generator) -> int | None:
    """Pairs until the workload is said to have left its profile; None: never."""
    workload = Workload(SLICES, AdvanceRules(workload_seconds=0.0))
    for script in rng.choice(SCRIPTS, profile, p=THEN):
        workload.take(_pair(str(script)), 1.0)
    workload.fix("a")
    now = THEN + np.array([-moved, 0.0, moved, 0.0, 0.0])
    for number, script in enumerate(rng.choice(SCRIPTS, PAIRS, p=now), start=1):
        workload.take(_pair(str(script)), 1.0)
        if workload.left():
            return number
    return None


def rows(reps: int, seed: int) -> Iterator[tuple[float, list[str], int]]:
    """The rows of the table: what moved, its cells, and in how many runs it was found."""
    for moved in MOVES:
        for profile in (LEAST_PAIRS, 10 * LEAST_PAIRS):
            rng = np.random.default_rng([seed, round(moved * 100), profile])
            found = [pairs_until_left(moved, profile, rng) for _ in range(reps)]
            times = sorted(each for each in found if each is not None)
            told = f"{median(times):,.0f} / {times[int(0.9 * len(times))]:,}" if times else "-"
            often = f"{len(times)} / {reps}"
            if len(times) < reps:
                often += f", ≤ {100 * upper_bound(len(times), reps):.1f} %"
            yield moved, [f"{moved:g}", f"{profile:,}", often, told], len(times)


def _pair(script: str) -> Pair:
    return Pair("r", "a", 1, script=script)


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    found = list(rows(given.reps, given.seed))
    heads = ["part of the traffic that moved", "pairs of the profile", "found", "median / p90"]
    print(table(heads, [cells for _, cells, _ in found]))
    false = max(count for moved, _, count in found if moved == 0.0)
    return int(false > 0 and 1 - chance_of_at_most(false - 1, given.reps, ALPHA) < _UNLIKELY)


if __name__ == "__main__":
    sys.exit(main())
