"""Delays with the settings of the tables and with the defaults of a rollout, beside the floor."""

from dataclasses import dataclass
from math import inf, log, log1p

from benchmarks.sim.traffic import ALPHA, FLIPS, HARM_TOLERANCE, REGRESSIONS, SLICES
from benchmarks.sim.trial import SHIPPED, Result, result_of, simulate
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.monitoring.observations import Signal

NAMES = (
    "all traffic +0.05",
    "all traffic +0.30",
    "one 5 % slice +0.10",
    "one 5 % slice +0.30",
)


@dataclass(frozen=True)
class Settings:
    """The part of a rollout's settings that decides how soon harm is found."""

    name: str
    share: float
    """Part of alpha that harm has."""
    generate: float
    """Share of the mirrored requests that give a harm."""

    def requests(self, pairs: float) -> float:
        """Mirrored requests until there are so many pairs with a harm, expected."""
        return pairs / self.generate


def defaults() -> Settings:
    """Settings of a rollout that declares nothing."""
    spec = RolloutSpec(model="m", candidate="c")
    harm = spec.guardrail(Signal.HARM)
    share = harm.share if harm is not None and harm.share is not None else 0.0
    return Settings("defaults of a rollout", share, spec.mirror.generate)


PUBLISHED = Settings("one signal has all of alpha, every pair a harm", 1.0, 1.0)
BEFORE = Settings("earlier defaults", 0.5, 0.3)


def floor(mean: float, share_of_traffic: float, alpha: float) -> float:
    """The pairs that any rule of level alpha needs on average: ln(1/alpha) / KL.

    KL is the least divergence of the harm's law from one that is within tolerance; by its dual form
    it is the growth of the best constant bet.

    Args:
        mean: Mean harm of the traffic that got worse.
        share_of_traffic: Its share of the pairs.
        alpha: Of the rule.
    """
    chances = {1.0: FLIPS + mean, 0.0: 1.0 - 2 * FLIPS - mean, -1.0: FLIPS}
    best = 0.0
    for step in range(1, 10_000):
        bet = step / 10_000 / (1.0 + HARM_TOLERANCE)
        best = max(best, sum(p * log1p(bet * (x - HARM_TOLERANCE)) for x, p in chances.items()))
    return log(1.0 / alpha) / best / share_of_traffic if best > 0 else inf


def deployed(reps: int, seed: int) -> dict[str, dict[Settings, tuple[Result, float]]]:
    """Simulate the regressions of `NAMES` with each setting.

    Returns:
        Regression -> settings -> (result in pairs with a harm, floor in the same).
    """
    found: dict[str, dict[Settings, tuple[Result, float]]] = {}
    for number, scenario in enumerate(REGRESSIONS):
        if scenario.name not in NAMES:
            continue
        part = 1.0 / SLICES if scenario.is_one_slice else 1.0
        found[scenario.name] = {}
        for settings in (PUBLISHED, BEFORE, defaults()):
            alpha = ALPHA * settings.share
            firsts = simulate(scenario, reps, seed + number, has_rivals=False, alpha=alpha)
            least = floor(scenario.level, part, alpha)
            found[scenario.name][settings] = result_of(firsts[SHIPPED], 0), least
    return found
