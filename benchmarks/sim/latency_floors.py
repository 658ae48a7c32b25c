"""Simulates latencies that are judged beside shadow answers.

A rollout is all shadow for some pairs, then all live, so that no live answer of the baseline stands
beside the candidate's. The pairs are folded by the shipped `RunEvidence`. Shadow answers come by a
slower path, each request is as long for both arms, and the load rises and falls.
`python -m benchmarks.sim.latency_floors` writes a Markdown table to standard output.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import tau

import numpy as np

from benchmarks.sim.bounds import upper_bound
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail, RolloutSpec
from penumbra.monitoring.observations import Pair, Run, RunReport, Signal

SLICES = ("chat", "code", "json", "long", "other", "tools")
RUN = Run("demo", "int8", "run-1")
TTFT = Signal.TTFT
SPEC = RolloutSpec(
    model="demo",
    candidate="int8",
    guardrails=(
        Guardrail(signal=Signal.HARM, tolerance=0.02, action="rollback", share=0.6),
        Guardrail(signal=TTFT, tolerance=0.2, action="rollback", share=0.1),
    ),
    gates=AdvanceRules(horizon=100_000),
)


@dataclass(frozen=True, slots=True)
class Times:
    """The times of two builds, relative to the baseline's at rest."""

    before: float = 1.0
    """How slow the candidate is while it is in shadow."""
    now: float = 1.0
    """How slow it is when it is live."""
    path: float = 3.0
    """How slow a shadow answer is beside a live one of the same build."""
    noise: float = 0.3
    """Standard deviation of the logarithm of each time."""
    load: float = 0.3
    """Amplitude of the load, of which live answers feel all and shadow ones nothing."""
    pairs_a_day: int = 6000

    def ratios(self, count: int, *, is_live: bool, rng: np.random.Generator) -> np.ndarray:
        """Draw the ratio of the client's time to the shadow answer's, for consecutive pairs."""
        load = 1 + self.load * np.sin(np.arange(count) * tau / self.pairs_a_day)
        own, other = (self.now, 1.0) if is_live else (1.0, self.before)
        noise = rng.normal(0.0, self.noise * 2**0.5, count)
        ratios: np.ndarray = own * load / (other * self.path) * np.exp(noise)
        return ratios


def pairs_of(ratios: np.ndarray, answered_by: str, start: int) -> Iterator[Pair]:
    """Make a pair of each ratio, the slices in turn."""
    for number, ratio in enumerate(ratios, start):
        yield Pair(
            request_id=str(number),
            slice=SLICES[number % len(SLICES)],
            cluster=number,
            answered_by=answered_by,
            first_ratio=float(ratio),
        )


def live_pairs_to_trip(times: Times, seed: int, *, shadow: int, live: int) -> int | None:
    """Fold a shadow stage and a live one; returns the live pairs to the trip, None if none."""
    rng = np.random.default_rng(seed)
    evidence = RunEvidence(SPEC, RUN.id, SLICES)
    ratios = times.ratios(shadow, is_live=False, rng=rng)
    evidence.fold("c", RunReport(RUN, pairs=tuple(pairs_of(ratios, "full", 1))))
    ratios = times.ratios(live, is_live=True, rng=rng)
    for count, pair in enumerate(pairs_of(ratios, "int8", shadow + 1), 1):
        evidence.fold("c", RunReport(RUN, pairs=(pair,)))
        if evidence.monitors[TTFT].tripped is not None:
            return count
    return None


SCENARIOS = {
    "equal, shadow path 3 times as slow": Times(),
    "equal, shadow path 3 times as fast": Times(path=1 / 3),
    "equal, noise .6, load ± 60 %": Times(noise=0.6, load=0.6),
    "1.5 times as slow all along: at the factor": Times(before=1.5, now=1.5),
    "2 times as slow all along": Times(before=2.0, now=2.0),
    "2 times as slow since it is live": Times(now=2.0),
    "3 times as slow since it is live": Times(now=3.0),
    "3 times as slow since it is live, noise .15": Times(now=3.0, noise=0.15),
    "5 times as slow since it is live": Times(now=5.0),
    "at .7 of the time in shadow, then 3 times as slow": Times(before=0.7, now=3.0),
    "at .7 of the time in shadow, then 5 times as slow": Times(before=0.7, now=5.0),
}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=100)
    parser.add_argument("--shadow", type=int, default=6_000, help="pairs in shadow")
    parser.add_argument("--live", type=int, default=6_000, help="pairs that are live, at most")
    parser.add_argument("--seed", type=int, default=20261)
    options = parser.parse_args()
    sys.stdout.write(
        "| candidate | tripped | bound | live pairs, median / p90 |\n|---|---|---|---|\n"
    )
    for name, times in SCENARIOS.items():
        found = [
            live_pairs_to_trip(times, options.seed + rep, shadow=options.shadow, live=options.live)
            for rep in range(options.reps)
        ]
        tripped = sorted(count for count in found if count is not None)
        padded = [*tripped, *[None] * (options.reps - len(tripped))]
        median, p90 = (padded[int(q * (options.reps - 1))] for q in (0.5, 0.9))
        sys.stdout.write(
            f"| {name} | {len(tripped)} / {options.reps} |"
            f" {upper_bound(len(tripped), options.reps):.1%} |"
            f" {median or 'never'} / {p90 or 'never'} |\n"
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
