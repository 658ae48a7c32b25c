"""Simulates the shipped statistics and prints the tables of docs/statistics.md.

    python -m benchmarks.sim [--reps 2000] [--seed 20261] [--write docs/statistics.md]

The same seed gives the same figures. False alarms and proofs are simulated --reps times, delays and
displacement half as often, the failure process an eighth. Exits with 1 if a binomial bound of false
rollback on harm is over alpha, or a delay more than 10 % over that of the design study's prototype.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sim.more_tables import settings_table
from benchmarks.sim.promotion import CANDIDATES, FAILURE_RATES, prove, trip
from benchmarks.sim.tables import (
    Results,
    broken_promises,
    delay,
    delays,
    false_alarms,
    short_delays,
    table,
)
from benchmarks.sim.traffic import DISPLACEMENTS, NULLS, REGRESSIONS, Scenario
from benchmarks.sim.trial import result_of, simulate

BEGIN, END = "<!-- make sim: begin -->", "<!-- make sim: end -->"


def main() -> int:
    """Run everything; the exit status says whether the promises are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reps", type=int, default=2000, help="repetitions of a null scenario")
    parser.add_argument("--seed", type=int, default=20261)
    parser.add_argument("--write", type=Path, help="replace the tables in this Markdown file")
    arguments = parser.parse_args()
    reps, seed = arguments.reps, arguments.seed
    begin = time.perf_counter()
    nulls = _run(NULLS, reps, seed)
    regressions = _run(REGRESSIONS, reps // 2, seed + 100)
    displacements = _run(DISPLACEMENTS, reps // 2, seed + 200, has_rivals=False)
    parts = [
        f"`python -m benchmarks.sim --reps {reps} --seed {seed}`: {reps:,} repetitions of the null "
        f"scenarios and of proof, {reps // 2:,} of the regressions and of displacement, "
        f"{reps // 8:,} of failure.",
        "### False rollback within 100,000 pairs",
        false_alarms(nulls),
        "### Pairs to rollback, median / p90",
        delays(regressions),
        "### Pairs to rollback by the settings, mirrored requests, median / p90 (floor)",
        settings_table(reps // 2, seed + 500),
        "### Displacement",
        false_alarms(_kind(displacements, is_null=True), has_rivals=False),
        short_delays(_kind(displacements, is_null=False)),
        "### Proof, observations in one stream",
        _proofs(reps, seed + 300),
        "### Failure process",
        _failures(reps // 8, seed + 400),
    ]
    text = "\n\n".join(parts)
    print(text)
    if arguments.write:
        _replace(arguments.write, text)
    broken = broken_promises(nulls, regressions)
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    print(f"{time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return 1 if broken else 0


def _run(
    scenarios: Sequence[Scenario], reps: int, seed: int, *, has_rivals: bool = True
) -> Results:
    results: Results = {}
    for number, scenario in enumerate(scenarios):
        print(f"... {scenario.name}", file=sys.stderr, flush=True)
        firsts = simulate(scenario, reps, seed + number, has_rivals=has_rivals)
        results[scenario.name] = {
            rule: result_of(first, scenario.begins) for rule, first in firsts.items()
        }
    return results


def _kind(results: Results, *, is_null: bool) -> Results:
    return {
        scenario.name: results[scenario.name]
        for scenario in DISPLACEMENTS
        if scenario.is_null == is_null
    }


def _proofs(reps: int, seed: int) -> str:
    results = {
        candidate.name: {"": result_of(prove(candidate, reps, seed + number), 0)}
        for number, candidate in enumerate(CANDIDATES)
    }
    return table(["candidate", "proven within 20,000", "median / p90"], _rows(results))


def _failures(reps: int, seed: int) -> str:
    results = {
        f"{100 * rate:g} %": {"": result_of(trip(rate, reps, seed + number), 0)}
        for number, rate in enumerate(FAILURE_RATES)
    }
    return table(["requests that fail", "tripped within 20,000", "median / p90"], _rows(results))


def _rows(results: Results) -> list[list[str]]:
    return [
        [name, f"{100 * outcome.fired / outcome.reps:.1f} %", delay(outcome)]
        for name, of_rule in results.items()
        for outcome in of_rule.values()
    ]


def _replace(path: Path, text: str) -> None:
    """Put the tables between the marks of a Markdown file."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
