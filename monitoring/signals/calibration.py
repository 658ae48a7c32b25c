"""Reads the tolerance of displacement from the first pairs of a run. Pure.

The distance between two builds that do the same work depends on the model and the slice, so no
fixed figure fits all. The tolerance is read from the level that the candidate began with; from then
on the guard watches that it stays there. This is no proof that the candidate is good: one that was
bad from its first pair is calibrated on its own damage. No tolerance is larger than `most`, so that
the worst of those exceed it at once; harm, which is measured against the baseline, judges the rest.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

FACTOR = 1.3
LEAST_OVER_AA = 0.005
STANDARD_ERRORS = 2.0
SLICE_PAIRS = 30
"""A slice with fewer values has no tolerance of its own."""
MOST = 0.25
"""Largest tolerance that is read: builds of 2 to 3 bits are that far off, sound ones are not."""


class Reading(msgspec.Struct, frozen=True):
    """One tolerance and the figures that it was read from."""

    pairs: int
    mean: float
    standard_error: float
    aa_pairs: int
    """Values of the baseline against itself; 0 if there were none."""
    aa_mean: float
    """Their mean; 0 without any."""
    tolerance: float
    is_capped: bool = False
    """Whether the rule gave more than the largest tolerance."""


class Calibration(msgspec.Struct, frozen=True, tag="calibrated"):
    """The tolerances of a run: frozen when read, and recorded as they are."""

    default: Reading
    """Of all pairs together: for the slices without one of their own."""
    slices: dict[str, Reading]
    too_few: tuple[str, ...]
    """Slices that had pairs, but fewer than `SLICE_PAIRS`."""
    rule: str


class Refusal(msgspec.Struct, frozen=True, tag="refused"):
    """No tolerance can be read yet."""

    reason: str


def calibrate(
    values: Mapping[str, Sequence[float]],
    aa: Mapping[str, Sequence[float]],
    wanted: int,
    most: float = MOST,
) -> Calibration | Refusal:
    """Read the tolerances.

    A tolerance is 1.3 times the mean that was found, at least the mean of the baseline against
    itself + 0.005 (two runs of one build differ by their numerics alone), and at least two standard
    errors over the mean, so that a mean which came out low by chance is not held against the
    candidate. In a slice the baseline's own mean is the slice's, if it has enough values, else that
    of all.

    Args:
        values: Slice -> displacement of its candidate pairs, [0, 1] each, in the order observed.
        aa: Slice -> displacement of its pairs of the baseline with itself.
        wanted: Pairs needed in all, at least 2.
        most: No tolerance is larger.

    Returns:
        The tolerances, or why there are none.

    Raises:
        ValueError: `wanted` is less than 2.
    """
    if wanted < 2:
        raise ValueError(f"wanted is {wanted}, the least to calibrate on is 2")
    pooled = [value for slice_values in values.values() for value in slice_values]
    if len(pooled) < wanted:
        return Refusal(f"{len(pooled)} pairs, {wanted} are needed")
    pooled_aa = [value for slice_values in aa.values() for value in slice_values]
    slices: dict[str, Reading] = {}
    for name in sorted(values):
        if len(values[name]) >= SLICE_PAIRS:
            own_aa = aa.get(name, ())
            has_own = len(own_aa) >= SLICE_PAIRS
            slices[name] = _read(values[name], own_aa if has_own else pooled_aa, most)
    return Calibration(
        default=_read(pooled, pooled_aa, most),
        slices=slices,
        too_few=tuple(name for name in sorted(values) if 0 < len(values[name]) < SLICE_PAIRS),
        rule=f"max({FACTOR:g} x mean, aa_mean + {LEAST_OVER_AA:g}, "
        f"mean + {STANDARD_ERRORS:g} x standard_error), at most {most:g}",
    )


def _read(values: Sequence[float], aa: Sequence[float], most: float) -> Reading:
    mean, aa_mean = _mean(values), _mean(aa)
    squares = math.fsum((value - mean) ** 2 for value in values)
    standard_error = math.sqrt(squares / (len(values) - 1) / len(values))
    tolerance = max(FACTOR * mean, aa_mean + LEAST_OVER_AA, mean + STANDARD_ERRORS * standard_error)
    return Reading(
        pairs=len(values),
        mean=mean,
        standard_error=standard_error,
        aa_pairs=len(aa),
        aa_mean=aa_mean,
        tolerance=min(most, tolerance),
        is_capped=tolerance > most,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
