"""Reads the tolerance of a slice's displacement from the first pairs of a run. Pure.

The distance between two builds that do the same work depends on the model and the slice, so no
fixed figure fits all. The tolerance is read from the level that the candidate began with; from then
on the guard watches that it stays there. This is no proof that the candidate is good: one that was
bad from its first pair is calibrated on its own damage. No tolerance is larger than `most`, so that
the worst of those exceed it at once; harm, which is measured against the baseline, judges the rest.

A mean that came out low by chance must not be held against the candidate. So a tolerance is no less
than the upper end of an interval, which the true mean exceeds with a probability that is part of
the guardrail's alpha; the guard has the rest of it. And each slice is read from its own pairs: one
whose level is unlike the others' would be condemned for it.
"""

from collections.abc import Sequence
from math import fsum

import msgspec

from penumbra.monitoring.stats.betting import bin_of
from penumbra.monitoring.stats.intervals import upper_end

FACTOR = 1.3
LEAST_OVER_AA = 0.005
MOST = 0.25
"""Largest tolerance that is read: builds of 2 to 3 bits are that far off, sound ones are not."""
RULE = (
    f"max({FACTOR:g} x mean, aa_mean + {LEAST_OVER_AA:g}, upper end of the mean), at most {MOST:g}"
)


class Reading(msgspec.Struct, frozen=True):
    """One tolerance and the figures that it was read from."""

    pairs: int
    mean: float
    upper: float
    """Upper end of the mean's interval."""
    aa_pairs: int
    """Values of the baseline against itself; 0 if there were none."""
    aa_mean: float
    """Their mean; 0 without any."""
    tolerance: float
    is_capped: bool = False
    """Whether the rule gave more than the largest tolerance."""


def read_tolerance(
    values: Sequence[float], aa: Sequence[float], alpha: float, most: float = MOST
) -> Reading:
    """Read the tolerance of one slice.

    It is 1.3 times the mean that was found, at least the mean of the baseline against itself +
    0.005 (two runs of one build differ by their numerics alone), and at least the upper end of the
    interval of the mean.

    Args:
        values: Displacement of the slice's candidate pairs, [0, 1] each.
        aa: Displacement of pairs of the baseline with itself; those of all slices where the slice
            has few.
        alpha: Probability that the true mean exceeds the upper end, in (0, 1/2].
        most: No tolerance is larger.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("found no values, wanted some to read a tolerance from")
    mean, aa_mean = _mean(values), _mean(aa)
    bins: dict[int, int] = {}
    for value in values:
        index = bin_of(value)
        bins[index] = bins.get(index, 0) + 1
    # The interval's own alpha is that of both ends together.
    upper = upper_end(bins, 0.0, 1.0, 2 * alpha)
    tolerance = max(FACTOR * mean, aa_mean + LEAST_OVER_AA, upper)
    return Reading(
        pairs=len(values),
        mean=mean,
        upper=upper,
        aa_pairs=len(aa),
        aa_mean=aa_mean,
        tolerance=min(most, tolerance),
        is_capped=tolerance > most,
    )


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values) if values else 0.0
