"""Limits of a rollout's numbers, within which all arithmetic on them is exact enough. Pure.

They are asked of a spec that an operator brings, and not of one that a store holds: a store of an
earlier release is read as it is.

The least alpha follows from float arithmetic. A guardrail trips where its evidence reaches 1/part,
`part` being the least piece of alpha that any process is given. With part >= `LEAST_PART` = 1e-12

- 1/part = 1e12 lies far beneath the cap of wealth (1e200), so that evidence can reach it;
- 1 - part is told apart from 1 by four digits (the distance of neighbouring floats there is
  1.1e-16), and ln(1/part) = 27.6 is a sum of ordinary logarithms.

Tolerances keep a distance of 1e-6 from the ends of their signal's range, because bets are 0.9 over
that distance: a bet of 9e5 on an observation of 1 still has a logarithm of 13.7, where one of
1.8e323 would be infinite.

Reading order: spec_problems.
"""

from collections.abc import Iterator

from penumbra.deployments.rollouts.spec import AdvanceRules, Calibrate, Guardrail, RolloutSpec
from penumbra.monitoring.observations import Signal
from penumbra.monitoring.signals.decode_gap import LIMIT

LEAST_ALPHA = 1e-9
"""Least `alpha` and `promotion_alpha`."""
LEAST_PART = 1e-12
"""Least part of alpha that a guardrail, a gateway, or a slice's calibration is left with."""
MARGIN = 1e-6
"""Least distance of a tolerance from the ends of its signal's range."""
LEAST_FACTOR = 0.01
MOST_PAIRS = 10_000_000
MOST_REQUESTS = 1_000_000_000
MOST_STAGE_SECONDS = 10 * 366 * 86_400.0
"""Ten years: a time that dates can still be added to."""
_CALIBRATED_PARTS = 2 * 2 * 21
"""Parts of a calibrated guardrail's alpha: two halves, two kinds of pairs, at most 21 slices."""


def spec_problems(spec: RolloutSpec) -> Iterator[str]:
    """Find every number that is out of its range: `path: found X, wanted Y`."""
    for name in ("alpha", "promotion_alpha"):
        yield from _at_least(name, getattr(spec, name), LEAST_ALPHA)
    for index, guardrail in enumerate(spec.guardrails):
        yield from _guardrail_problems(f"guardrails[{index}]", spec, guardrail)
    yield from _gate_problems(spec.gates)
    yield from _tolerance_problems("mirror.aa_tolerance", spec.mirror.aa_tolerance, 1.0)


def _guardrail_problems(path: str, spec: RolloutSpec, guardrail: Guardrail) -> Iterator[str]:
    most = LIMIT if guardrail.signal is Signal.DECODE_GAP else 1.0
    if isinstance(guardrail.tolerance, float):
        yield from _tolerance_problems(f"{path}.tolerance", guardrail.tolerance, most)
    for name, tolerance in guardrail.slices.items():
        yield from _tolerance_problems(f"{path}.slices.{name}", tolerance, most)
    yield from _at_least(f"{path}.factor", guardrail.factor, LEAST_FACTOR)
    if guardrail.share is None or spec.alpha < LEAST_ALPHA:
        return
    parts = _parts_of(spec, guardrail)
    least = LEAST_PART * parts / spec.alpha
    if guardrail.share < least:
        yield (
            f"{path}.share: found {guardrail.share!r}, wanted at least {least:.3g} with alpha"
            f" {spec.alpha:g}: it is divided by {parts}, and each part has to be {LEAST_PART:g}"
        )


def _parts_of(spec: RolloutSpec, guardrail: Guardrail) -> int:
    if guardrail.signal is Signal.FAILURE:
        return 2 * spec.gateways * spec.candidates
    parts = _CALIBRATED_PARTS if isinstance(guardrail.tolerance, Calibrate) else 1
    return parts * spec.candidates


def _gate_problems(gates: AdvanceRules) -> Iterator[str]:
    most: dict[str, float] = {
        "pairs": MOST_PAIRS,
        "slice_pairs": MOST_PAIRS,
        "stage_seconds": MOST_STAGE_SECONDS,
        "stage_pairs": MOST_PAIRS,
        "broken_seconds": MOST_STAGE_SECONDS,
        "failure_requests": MOST_REQUESTS,
    }
    for name, limit in most.items():
        value = getattr(gates, name)
        if value is not None and not value <= limit:
            yield f"gates.{name}: found {shown(value)}, wanted at most {limit:.0f}"


def _tolerance_problems(path: str, tolerance: float, most: float) -> Iterator[str]:
    if not MARGIN <= tolerance <= most - MARGIN:
        yield f"{path}: found {tolerance!r}, wanted {MARGIN:g} to {most:g} - {MARGIN:g}"


def _at_least(path: str, value: float, least: float) -> Iterator[str]:
    if not value >= least:
        yield f"{path}: found {value!r}, wanted at least {least:g}"


def shown(value: float) -> str:
    """Write a number out as far as that can be done."""
    # An int may have more digits than a float can hold, and more than Python writes out.
    is_huge = isinstance(value, int) and abs(value) > 10**300
    return "a number of more than 300 digits" if is_huge else repr(value)
