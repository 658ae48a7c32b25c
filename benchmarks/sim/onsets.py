"""Simulates the effect since the onset: how often its interval misses, with the shipped guard."""

import random
from dataclasses import dataclass

from benchmarks.sim.traffic import FLIPS, HARM_TOLERANCE
from penumbra.monitoring.stats.guard import Guard, GuardSpec
from penumbra.monitoring.stats.onset import Effect

ALPHA_OF_INTERVAL = 0.05
_MOST = 20_000
"""Pairs after the change, if the guard does not trip before."""
_SPEC = GuardSpec({"only": HARM_TOLERANCE}, HARM_TOLERANCE, low=-1.0, high=1.0, alpha=0.01)


@dataclass(frozen=True)
class Change:
    """A candidate that gets worse."""

    name: str
    before: int
    """Pairs of harm +.004 before the change."""
    mean: float
    """Mean harm from then on."""
    looks: int | None = None
    """Pairs after the change at which it is looked at; None: at the rollback."""


CHANGES = (
    Change("+.06 from the start, at the rollback", 0, 0.06),
    Change("+.06 after 2,000 pairs, at the rollback", 2_000, 0.06),
    Change("+.06 after 20,000 pairs, at the rollback", 20_000, 0.06),
    Change("+.30 after 2,000 pairs, at the rollback", 2_000, 0.3),
    Change("exactly at tolerance, after 5,000 pairs", 0, HARM_TOLERANCE, looks=5_000),
)


@dataclass(frozen=True)
class Coverage:
    """Effects since the onset of many runs of one change."""

    reps: int
    shown: int
    """Runs with an onset."""
    missed: int
    """Of these, those whose interval lies off the mean after the change."""
    whole: int
    """Runs in which the interval of the whole run lies off it."""
    median: Effect | None
    """Of the effects shown, the one with the median mean."""


def cover(change: Change, reps: int, seed: int) -> Coverage:
    """Play a change many times."""
    shown: list[Effect] = []
    missed = whole = 0
    for rep in range(reps):
        guard = _play(change, random.Random(seed * 100_000 + rep))
        view = guard.slice("only")
        whole += not view.lower <= change.mean <= view.upper
        effect = view.effect
        if effect is not None:
            shown.append(effect)
            missed += not effect.lower <= change.mean <= effect.upper
    shown.sort(key=lambda effect: effect.mean)
    median = shown[len(shown) // 2] if shown else None
    return Coverage(reps, len(shown), missed, whole, median)


def _play(change: Change, rng: random.Random) -> Guard:
    guard = Guard(_SPEC)
    for _ in range(change.before):
        guard.observe("only", _harm(rng, 0.004))
    for _ in range(change.looks or _MOST):
        guard.observe("only", _harm(rng, change.mean))
        if change.looks is None and guard.is_tripped:
            break
    return guard


def _harm(rng: random.Random, mean: float) -> float:
    drawn = rng.random()
    return 1.0 if drawn < FLIPS + mean else (-1.0 if drawn < 2 * FLIPS + mean else 0.0)
