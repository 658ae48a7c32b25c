"""Builds within tolerance before the whole instrument: how often one is taken out, or released.

    python -m benchmarks.sim.instrument [--reps 100] [--seed 7] [--workers 2] [--only NAME]

`benchmarks.sim` tries the guard alone. Here `RunEvidence`, `decide` and `watch_of` act on what a
run observes of the traffic of `benchmarks.sim.instrument_traffic`. The builds are equal in every
scenario, or keep the level that they began with, or are exactly at tolerance, so a final verdict
`fail` is false; so is an `error` where both builds are without noise, and where they are at
tolerance, so is every release of a slice. The rollout stays in shadow, and pairs say who answered.
Exits with 1 if a binomial bound at 95 % is above the alpha that was promised.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from benchmarks.sim.bounds import upper_bound
from benchmarks.sim.instrument_scenarios import ALPHA, Scenario, scenarios
from benchmarks.sim.instrument_traffic import RUN, Observation
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.flag_effects import watch_of
from penumbra.deployments.rollouts.record import Phase, Rollout, RolloutRecord, Verdict
from penumbra.deployments.rollouts.transitions import restart
from penumbra.monitoring.observations import Counts, Pair, Run, RunReport, Trip
from penumbra.router.flags.routing_table import Watch

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_A_REPORT = 20
_AFTER = 25_000
"""Most observations that come after a rollback, until its verdict is final."""
_BUILDS = {"full": "weights of full", "int8": "weights of int8"}


@dataclass(frozen=True)
class Outcome:
    """The end of one rollout."""

    verdicts: tuple[Verdict | None, ...]
    """Those of its runs."""
    has_released: bool
    """Whether any slice was ever proven."""


class _Play:
    """One rollout under way."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._spec = scenario.spec
        self._slices = scenario.slices
        self.record = RolloutRecord(
            phase=Phase.SHADOW,
            since=BEGAN,
            run=RUN.id,
            slices=scenario.slices,
            cause="begins",
            released={},
        )
        self._stream = scenario.draw(random.Random(seed), self._aa)
        self._begin()

    def go(self, observations: int) -> None:
        """Let the run go on until its verdict is final, for so many observations at most."""
        for _ in range(0, observations, _A_REPORT):
            was = self.record.phase
            self._fold(tuple(islice(self._mirrored(), _A_REPORT)))
            is_away = self.record.phase is Phase.ROLLED_BACK
            if is_away and self.record.arbitration is None:
                return
            if is_away and was is not Phase.ROLLED_BACK:
                self.go(_AFTER)
                return

    def arm(self) -> None:
        """Begin another run of the same builds."""
        self.record = restart(self.record, BEGAN, "armed again")
        self._begin()

    def _begin(self) -> None:
        runs = self.record.earlier_runs
        self._evidence = RunEvidence(self._spec, self.record.run, self._slices, runs)
        self._watch = self._watch_now()

    def _fold(self, batch: tuple[Observation, ...]) -> None:
        run = Run(RUN.model, RUN.candidate, self.record.run)
        report = RunReport(
            run,
            pairs=tuple(each for each in batch if isinstance(each, Pair)),
            counts=tuple(each for each in batch if isinstance(each, Counts)),
            trips=tuple(each for each in batch if isinstance(each, Trip)),
            fingerprints=_BUILDS,
        )
        self._evidence.fold("comparator", report)
        self.record, steps = decide(self._spec, self.record, self._evidence.findings(), BEGAN)
        if steps:
            self._watch = self._watch_now()

    def _watch_now(self) -> Watch | None:
        return watch_of(Rollout(spec=self._spec, record=self.record))

    def _mirrored(self) -> Iterator[Observation]:
        for each in self._stream:
            if not isinstance(each, Pair) or self._is_mirrored(each.slice):
                yield each

    def _is_mirrored(self, slice_name: str) -> bool:
        watch = self._watch
        return watch is None or watch.mirror_slices.get(slice_name, watch.mirror) > 0

    def _aa(self, slice_name: str) -> float:
        watch = self._watch
        return 0.0 if watch is None else watch.aa_slices.get(slice_name, watch.aa)


def play(scenario: Scenario, seed: int) -> Outcome:
    """Let one rollout go on until its verdict is final, or its observations are used up."""
    rollout, has_released = _Play(scenario, seed), False
    verdicts: list[Verdict | None] = []
    for number in range(scenario.runs):
        if number:
            rollout.arm()
        rollout.go(scenario.observations)
        verdicts.append(rollout.record.verdict)
        has_released = has_released or bool(rollout.record.proven)
    return Outcome(tuple(verdicts), has_released)


def main() -> int:
    """Play every scenario; the exit status says whether the promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="play the scenarios whose name begins so")
    options = parser.parse_args()
    print(f"alpha {ALPHA:g} of rollback and of promotion\n")
    print("| traffic | verdict error | verdict fail | bound | released at tolerance | bound |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    is_kept = True
    with ProcessPoolExecutor(options.workers) as pool:
        for index, scenario in enumerate(scenarios()):
            if not scenario.name.startswith(options.only):
                continue
            began = time.perf_counter()
            seeds = [options.seed * 100_000 + index * 1000 + n for n in range(options.reps)]
            ends = list(pool.map(_play_numbered, [index] * options.reps, seeds))
            cells, is_bounded = _row(scenario, ends)
            is_kept = is_kept and is_bounded
            print(f"| {scenario.name} | {' | '.join(cells)} |", flush=True)
            took = time.perf_counter() - began
            print(f"{scenario.name}: {took:.0f} s", file=sys.stderr, flush=True)
    return 0 if is_kept else 1


def _row(scenario: Scenario, ends: list[Outcome]) -> tuple[list[str], bool]:
    # Alpha is that of each run, and that of promotion of all runs of the same builds.
    verdicts = [verdict for end in ends for verdict in end.verdicts]
    errors = verdicts.count(Verdict.ERROR)
    false = [(verdicts.count(Verdict.FAIL), len(verdicts))]
    cells = [str(errors)]
    if scenario.is_at_tolerance:
        false.append((sum(end.has_released for end in ends), len(ends)))
    bounds = [upper_bound(count, trials) for count, trials in false]
    for (count, trials), bound in zip(false, bounds, strict=True):
        cells += [f"{count} of {trials}", f"{100 * bound:.1f} %"]
    if not scenario.is_noisy:  # elsewhere an error is right
        bounds.append(upper_bound(errors, len(verdicts)))
    return [*cells, *["-"] * (5 - len(cells))], max(bounds) <= ALPHA


def _play_numbered(index: int, seed: int) -> Outcome:
    return play(scenarios()[index], seed)


if __name__ == "__main__":
    sys.exit(main())
