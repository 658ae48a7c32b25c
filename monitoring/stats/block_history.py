"""History of a stream in blocks that grow with their age: bounded memory for any length. Pure.

A block holds the counts of consecutive observations. There are at most `PER_LEVEL` blocks of each
size up to a factor of two, so a stream of n observations has about 4 log2(n / 4) of them, and the
age of a block's beginning is known within a third. Which blocks are joined depends on the counts of
observations alone, never on their values.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from penumbra.monitoring.stats.betting import BetSums

PER_LEVEL = 4
"""Most blocks of one level; level j has 2^j to 2^(j + 1) - 1 observations each."""
FINEST = 4
"""Observations of the smallest block."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive observations, counted."""

    count: int
    total: float
    """Sum of the observations."""
    bins: dict[int, int]
    """`betting.bin_of` -> observations. Never changed."""

    @property
    def level(self) -> int:
        """Logarithm of the count to base 2, rounded down."""
        return self.count.bit_length() - 1


def joined(blocks: Iterable[Block]) -> Block:
    """Join blocks into one; 0 observations without any."""
    count, total, bins = 0, 0.0, dict[int, int]()
    for block in blocks:
        count += block.count
        total += block.total
        for index, number in block.bins.items():
            bins[index] = bins.get(index, 0) + number
    return Block(count, total, bins)


class BlockHistory:
    """The blocks of one stream."""

    __slots__ = ("_levels", "_newest")

    def __init__(self) -> None:
        self._levels: dict[int, list[Block]] = {}
        """Level -> its blocks, oldest first; every block is older than those of lower levels."""
        self._newest = BetSums()
        """Observations that are no block yet."""

    def add(self, sums: BetSums) -> None:
        """Add a batch of observations; a batch is never divided."""
        newest = self._newest
        newest.count += sums.count
        newest.total += sums.total
        for index, number in sums.bins.items():
            newest.bins[index] = newest.bins.get(index, 0) + number
        if newest.count >= FINEST:
            self._put(Block(newest.count, newest.total, newest.bins))
            self._newest = BetSums()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, oldest first, the one that is being filled included."""
        newest = self._newest
        found = [
            block for level in sorted(self._levels, reverse=True) for block in self._levels[level]
        ]
        if newest.count:
            found.append(Block(newest.count, newest.total, dict(newest.bins)))
        return tuple(found)

    def dump(self) -> list[list[Any]]:
        """Return the blocks in JSON types."""
        return [
            [block.count, block.total, {str(index): number for index, number in block.bins.items()}]
            for block in self.blocks
        ]

    def load(self, dumped: Iterable[Iterable[Any]]) -> None:
        """Go on where `dump` was."""
        self._levels, self._newest = {}, BetSums()
        for count, total, bins in dumped:
            own = {int(index): int(number) for index, number in bins.items()}
            block = Block(int(count), float(total), own)
            if block.count < FINEST:
                self._newest = BetSums(block.count, block.total, bins=own)
            else:
                self._levels.setdefault(block.level, []).append(block)

    def _put(self, block: Block) -> None:
        """Add the newest block. A large one takes in the smaller ones before it, to keep order."""
        while lower := [level for level in self._levels if level < block.level]:
            smaller = [self._levels.pop(level) for level in sorted(lower, reverse=True)]
            block = joined([*chain.from_iterable(smaller), block])
        self._append(block)

    def _append(self, block: Block) -> None:
        """Add a block as the newest of its level; too many of a level are joined, oldest first."""
        own = self._levels.setdefault(block.level, [])
        own.append(block)
        if len(own) > PER_LEVEL:
            self._append(joined((own.pop(0), own.pop(0))))
