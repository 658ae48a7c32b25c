"""The scenarios of `benchmarks.sim.instrument`: traffic, and the rollout that guards it."""

import math
import random
from dataclasses import dataclass

from benchmarks.sim.instrument_traffic import (
    Draw,
    FailureSpec,
    at_tolerance,
    attempts,
    beta,
    calibrated,
    conversations,
    greedy,
    lognormal,
    long_answers,
    noise,
    spikes,
    streams,
)
from penumbra.deployments.rollouts.spec import (
    AdvanceRules,
    Calibrate,
    Guardrail,
    MirrorRates,
    RolloutSpec,
)
from penumbra.monitoring.observations import Signal

ALPHA = 0.05
"""Of rollback and of promotion: large, so that few repetitions give a bound below it."""
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Scenario:
    """One kind of traffic before a candidate that is within tolerance."""

    name: str
    spec: RolloutSpec
    slices: tuple[str, ...]
    observations: int
    """Observations of one run."""
    draw: Draw
    runs: int = 1
    """Runs of the same builds; each after the first is armed by an operator."""
    is_noisy: bool = False
    """Whether the instrument finds differences between equal answers, so that `error` is right."""
    is_at_tolerance: bool = False
    """Whether no slice may be released: each is exactly as bad as it may be."""


def scenarios() -> list[Scenario]:
    """All scenarios."""
    return [
        *_calibrated(),
        *_conversations(),
        *_noise(),
        *_who_answered(),
        Scenario("answers over 60 s", _harm(_TOLERANCE), ("other",), 20_000, long_answers),
        Scenario("streamed and whole", _harm(_TOLERANCE), ("other",), 6_000, streams),
        *_at_tolerance(),
        *_attempts(),
    ]


def _calibrated() -> list[Scenario]:
    zipf = tuple(1 / rank for rank in range(1, 9))
    traffic = [
        ("6 equal slices, beta", (1.0,) * 6, (0.02,) * 6, beta, 25_000),
        ("6 equal slices, lognormal 1.5", (1.0,) * 6, (0.02,) * 6, lognormal, 25_000),
        ("6 equal slices, all or nothing", (1.0,) * 6, (0.02,) * 6, spikes, 25_000),
        ("20 slices, levels apart by .3", (1.0,) * 20, _levels(20, 0.3), beta, 45_000),
        ("20 slices, levels apart by .5", (1.0,) * 20, _levels(20, 0.5), beta, 45_000),
        ("8 Zipf slices", zipf, _levels(8, 0.4), beta, 30_000),
    ]
    return [
        Scenario(
            f"calibrated: {name}",
            _displacement(),
            _names(len(shares)),
            pairs,
            calibrated(shares, means, law),
        )
        for name, shares, means, law, pairs in traffic
    ]


def _conversations() -> list[Scenario]:
    return [
        Scenario(
            f"conversations of {turns} turns, leaning {spread}",
            _harm(_TOLERANCE),
            ("other",),
            20_000,
            conversations(turns, spread),
        )
        for turns, spread in ((20, 0.1), (20, 0.3), (50, 0.1))
    ]


def _noise() -> list[Scenario]:
    return [
        Scenario(
            f"noise {level} in both, tolerance {tolerance}",
            _harm(tolerance),
            ("other",),
            20_000,
            noise(level),
            is_noisy=True,
        )
        for tolerance, level in ((0.03, 0.04), (0.03, 0.08), (0.005, 0.012))
    ]


def _who_answered() -> list[Scenario]:
    return [
        Scenario(
            f"who answered, level {shadow} to {live}, {share:.0%} live",
            _displacement(),
            ("other",),
            8_000,
            greedy(shadow, live, share),
        )
        for shadow, live, share in ((0.086, 0.116, 1.0), (0.012, 0.058, 0.5))
    ]


def _at_tolerance() -> list[Scenario]:
    return [
        Scenario(
            "20 slices exactly at tolerance",
            _harm(_TOLERANCE),
            _names(20),
            40_000,
            at_tolerance(20, _TOLERANCE, 0.1),
            is_at_tolerance=True,
        ),
        Scenario(
            "one slice at tolerance, armed 10 times",
            _harm(_TOLERANCE),
            _names(1),
            4_000,
            at_tolerance(1, _TOLERANCE, 0.1),
            runs=10,
            is_at_tolerance=True,
        ),
    ]


def _attempts() -> list[Scenario]:
    tolerance = 0.005
    guardrail = Guardrail(signal=Signal.FAILURE, tolerance=tolerance, action="rollback", share=1.0)
    harm = Guardrail(signal=Signal.HARM, tolerance=_TOLERANCE, action="alert")
    spec = RolloutSpec(
        model="demo", candidate="int8", alpha=ALPHA, guardrails=(guardrail, harm), gateways=2
    )
    # As `penumbra.deployments.rollouts.flag_effects` divides it.
    each = FailureSpec(spec.gateways, tolerance, ALPHA / 2 / spec.gateways, 100_000)
    return [
        Scenario(
            f"{rate} attempts a second, failures at once, answers in 60 s",
            spec,
            ("other",),
            40_000,
            attempts(each, rate, 59.0),
        )
        for rate in (20, 50)
    ]


def _harm(tolerance: float) -> RolloutSpec:
    guardrail = Guardrail(signal=Signal.HARM, tolerance=tolerance, action="rollback", share=1.0)
    return RolloutSpec(
        model="demo",
        candidate="int8",
        alpha=ALPHA,
        promotion_alpha=ALPHA,
        guardrails=(guardrail,),
        gates=AdvanceRules(slice_pairs=300),
    )


def _displacement() -> RolloutSpec:
    guardrail = Guardrail(
        signal=Signal.DISPLACEMENT,
        tolerance=Calibrate(calibrate=1000),
        action="rollback",
        share=1.0,
    )
    return RolloutSpec(
        model="demo",
        candidate="int8",
        alpha=ALPHA,
        guardrails=(guardrail,),
        mirror=MirrorRates(aa=0.0),
    )


def _levels(count: int, spread: float) -> tuple[float, ...]:
    rng = random.Random(11)
    return tuple(min(0.2, 0.02 * math.exp(rng.gauss(0.0, spread))) for _ in range(count))


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"s{index}" for index in range(count))
