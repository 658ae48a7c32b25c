"""Set of recent keys (prompts, sessions) in constant memory, which forgets the oldest. Pure.

A Bloom filter never calls a key new that it was given, and calls a new one old at a known rate.
One filter alone would fill up until everything looks old; two generations forget the older half
instead.
"""

import math

_WORD = (1 << 64) - 1
# Odd constants of splitmix64: spread keys that are no hashes, and derive a second hash from one.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


class RecentKeys:
    """The keys of the recent past: at least the last `capacity`, at most twice as many.

    Args:
        capacity: Keys of one generation.
        false_positives: Rate at which a new key is called old when both generations are full.
    """

    __slots__ = ("_bits", "_capacity", "_count", "_current", "_hashes", "_previous")

    def __init__(self, capacity: int, false_positives: float = 0.005) -> None:
        if capacity < 1 or not 0.0 < false_positives < 1.0:
            raise ValueError(f"capacity is {capacity}, false_positives {false_positives}")
        # Each generation errs by itself, hence half the rate for each.
        each = false_positives / 2
        self._bits = max(64, math.ceil(-capacity * math.log(each) / math.log(2) ** 2))
        self._hashes = max(1, round(self._bits / capacity * math.log(2)))
        self._capacity = capacity
        self._count = 0
        self._current = bytearray(self._bits // 8 + 1)
        self._previous = bytearray(self._bits // 8 + 1)

    @property
    def size_bytes(self) -> int:
        """Memory of the bits."""
        return 2 * len(self._current)

    def __contains__(self, key: int) -> bool:
        places = self._places(key)
        return _holds(self._current, places) or _holds(self._previous, places)

    def add(self, key: int) -> bool:
        """Add a key of up to 64 bits, and return whether it was new."""
        places = self._places(key)
        if _holds(self._current, places) or _holds(self._previous, places):
            return False
        if self._count >= self._capacity:
            self._previous, self._current = self._current, bytearray(len(self._current))
            self._count = 0
        for place in places:
            self._current[place >> 3] |= 1 << (place & 7)
        self._count += 1
        return True

    def _places(self, key: int) -> list[int]:
        first = _mix(key & _WORD)
        step = _mix(first) | 1
        return [((first + number * step) & _WORD) % self._bits for number in range(self._hashes)]


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _WORD
    value = ((value ^ (value >> 30)) * _MIX_1) & _WORD
    value = ((value ^ (value >> 27)) * _MIX_2) & _WORD
    return value ^ (value >> 31)


def _holds(bits: bytearray, places: list[int]) -> bool:
    return all(bits[place >> 3] >> (place & 7) & 1 for place in places)
