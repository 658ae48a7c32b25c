"""Limit that at most a given share of future values exceeds, read from past ones. Pure.

Distribution-free, by order statistics (Wilks 1941): of n independent values of one distribution let
x be the one that j others exceed. A share of more than s of the distribution lies over x only if at
most j of n values fell into its uppermost share s, which has the probability P(Bin(n, s) <= j).

Reading order: ToleranceLimit.add, most_above.
"""

import heapq
from math import ceil, exp, inf, lgamma, log, log1p

EXPECTED_ABOVE = 50.0
"""Values of a block that are expected in the uppermost share: with so many, a limit that may fail
with a probability of 1e-4 is exceeded by half of that share."""


def block_size(share: float, alpha: float) -> int:
    """Number of values from which a limit can be read.

    Args:
        share: Share that may exceed the limit, in (0, 1).
        alpha: Probability that more do, in (0, 1).
    """
    return max(ceil(EXPECTED_ABOVE / share), ceil(log(alpha) / log1p(-share)))


def most_above(count: int, share: float, alpha: float) -> int:
    """The largest j with P(Bin(count, share) <= j) <= alpha; -1 if there is none.

    Args:
        count: Number of values, 1 or more.
        share: As in `block_size`.
        alpha: As in `block_size`.
    """
    total, above = 0.0, -1
    while above + 1 < count:
        total += _chance_of(above + 1, count, share)
        if total > alpha:
            return above
        above += 1
    return above


class ToleranceLimit:
    """Largest of the limits that are read from consecutive blocks of values.

    Conditions may change from block to block. Assumption: the values of one block, under which
    they are as large as they will be later, are independent and of one distribution. Guarantee: the
    probability that more than `share` of later values exceed `limit` is at most `alpha`. That block
    need not be known, and no union over blocks is needed: the limit is at least its own.

    Args:
        share: Share that may exceed the limit, in (0, 1).
        alpha: Probability that more do, in (0, 1).
    """

    __slots__ = ("_above", "_largest", "count", "limit", "wanted")

    def __init__(self, share: float, alpha: float) -> None:
        self.wanted = block_size(share, alpha)
        """Values of a block."""
        self.count = 0
        """Values of the block that is being filled."""
        self.limit: float | None = None
        """None until a block is full."""
        self._above = max(0, most_above(self.wanted, share, alpha))
        self._largest: list[float] = []

    def add(self, value: float) -> None:
        """Adds one value."""
        self.count += 1
        if len(self._largest) <= self._above:
            heapq.heappush(self._largest, value)
        elif value > self._largest[0]:
            heapq.heapreplace(self._largest, value)
        if self.count == self.wanted:
            self.limit = max(self._largest[0], -inf if self.limit is None else self.limit)
            self.count, self._largest = 0, []


def _chance_of(events: int, trials: int, share: float) -> float:
    return exp(
        lgamma(trials + 1)
        - lgamma(events + 1)
        - lgamma(trials - events + 1)
        + events * log(share)
        + (trials - events) * log1p(-share)
    )
