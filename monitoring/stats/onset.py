"""Effect of a stream since it began to be beyond its tolerance. Pure.

The mean of all observations hides a late change: after 300,000 good ones it is the good mean. Here
the beginning of the change is estimated, and the mean since then is given with an interval that
holds although the beginning was chosen by the observations.

Reading order: since_onset, Effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log1p

from penumbra.monitoring.stats.betting import bets_against, bin_bounds
from penumbra.monitoring.stats.block_history import Block, joined
from penumbra.monitoring.stats.intervals import lower_end, upper_end
from penumbra.monitoring.stats.wealth import log_mean_exp


@dataclass(frozen=True, slots=True)
class Effect:
    """Mean of the observations since the estimated onset."""

    count: int
    """Observations since the onset, which is known within a third of them."""
    mean: float
    lower: float
    """Lower end of the interval of the mean."""
    upper: float
    """Upper end."""


def since_onset(
    blocks: Sequence[Block],
    tolerance: float,
    low: float,
    high: float,
    alpha: float,
    horizon: float,
) -> Effect | None:
    """Estimate the onset of a stream's being beyond tolerance, and the effect since then.

    The onset is the beginning of a block after which the bets against the candidate would have won
    the most. Guarantee: P(within the horizon there is ever a look, and ever a beginning that may be
    chosen at it, whose interval misses the mean since then) <= alpha, if the mean is constant since
    then; if it is not, the lower end is at most the largest mean and the upper end at least the
    smallest. Argument: the beginning of the run has half of alpha. Of the other beginnings whose
    block has 2^j observations or more there are at most N / 2^j, and each has alpha 2^j / (2 N L),
    where L is the number of levels. Each interval holds at all times together; the union bound
    gives alpha.

    Args:
        blocks: The stream's history, oldest first.
        tolerance: Largest mean that is within tolerance.
        low: Least possible observation.
        high: Largest possible observation.
        alpha: Of both ends together, in (0, 1).
        horizon: Observations N of the stream for which it holds; beyond, it fades.

    Returns:
        None if there is no such onset: from no beginning on would the bets have won.
    """
    begins = _onset(blocks, bets_against(tolerance, low), tolerance)
    if begins is None:
        return None
    since = joined(blocks[begins:])
    part = 0.5 if begins == 0 else 0.5 * _share(blocks[begins], horizon)
    return Effect(
        count=since.count,
        mean=since.total / since.count,
        lower=lower_end(since.bins, low, high, alpha * part),
        upper=upper_end(since.bins, low, high, alpha * part),
    )


def _share(block: Block, horizon: float) -> float:
    """The part of alpha that belongs to one beginning, of all that the horizon has."""
    return min(1.0, (1 << block.level) / horizon) / int(horizon).bit_length()


def _onset(blocks: Sequence[Block], bets: Sequence[float], tolerance: float) -> int | None:
    """Index of the block with which the best bets begin; None: none would have won."""
    logs = [0.0] * len(bets)
    best, most = None, 0.0
    for place in range(len(blocks) - 1, -1, -1):
        for index, number in blocks[place].bins.items():
            gap = sum(bin_bounds(index)) / 2 - tolerance
            for bet, size in enumerate(bets):
                logs[bet] += number * log1p(size * gap)
        won = log_mean_exp(logs)
        if won > most:
            best, most = place, won
    return best
