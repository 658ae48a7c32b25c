"""Bucketing: assigns targeting keys to shares; sticky, alike on every replica, monotone. Pure.

The hash is the one of flagd's `fractional` operator (MurmurHash3 of the CBOR array
`[flag key, targeting key]`), so an exported flag puts every user into the same variant wherever it
is evaluated.

Shares are percents with a resolution of 0.01. They lie on a line of 10 000 basis points:

    |-- 1st --|-- 3rd --|---------- baseline ----------|-- 4th --|-- 2nd --|
    0                                                                   10 000

Candidates keep their place in the order in which the model declares them, whether or not they have
a share: the odd ones stack up from the bottom, the even ones down from the top. Raising a share
therefore moves no targeting key out of the candidate that is raised, nor out of one declared before
it, nor out of one on the other side. With one or two candidates no key leaves any candidate.
"""

import math
from collections.abc import Iterable, Mapping

import mmh3

TOTAL = 10_000
"""Basis points of the whole line."""

_TEXT = 0x60
_ARRAY_OF_TWO = b"\x82"


def cbor_text(text: str) -> bytes:
    """Encode a CBOR text string (RFC 8949, major type 3, shortest form)."""
    data = text.encode("utf-8", "surrogatepass")
    size = len(data)
    if size < 24:
        return bytes((_TEXT | size,)) + data
    if size < 0x100:
        return bytes((_TEXT | 24, size)) + data
    if size < 0x1_0000:
        return bytes((_TEXT | 25,)) + size.to_bytes(2, "big") + data
    return bytes((_TEXT | 26,)) + size.to_bytes(4, "big") + data


def salt(flag_key: str) -> bytes:
    """Return the bytes that are hashed before a targeting key; constant for a model."""
    return _ARRAY_OF_TWO + cbor_text(flag_key)


def position(salt: bytes, targeting_key: str) -> int:
    """Return the basis point in [0, 10 000) of a targeting key."""
    digest: int = mmh3.mmh3_32_uintdigest(salt + cbor_text(targeting_key))
    return (digest * TOTAL) >> 32


def basis_points(percent: float) -> int:
    """Convert a share from percent to basis points.

    Raises:
        ValueError: It is no number in [0, 100], or finer than 0.01 percent.
    """
    if not math.isfinite(percent) or not 0.0 <= percent <= 100.0:
        raise ValueError("a percentage from 0 to 100")
    points = round(percent * 100)
    if abs(percent * 100 - points) > 1e-6:
        raise ValueError("a multiple of 0.01")
    return points


class Line:
    """The shares of one split, laid out on the line."""

    __slots__ = ("_ends",)

    def __init__(self, intervals: Iterable[tuple[str, int]]) -> None:
        ends: list[tuple[int, str]] = []
        end = 0
        for variant, points in intervals:
            end += points
            ends.append((end, variant))
        self._ends = tuple(ends)

    def variant_at(self, point: int) -> str:
        """Return the variant of a basis point in [0, 10 000)."""
        for end, variant in self._ends:
            if point < end:
                return variant
        raise ValueError(f"basis point {point} is outside the line")


def intervals(
    split: Mapping[str, float], baseline: str, variants: Iterable[str]
) -> list[tuple[str, int]]:
    """Lay a split out on the line, bottom first: (variant, basis points), summing to 10 000.

    Args:
        split: Candidate -> percent; candidates left out have none.
        baseline: The variant that gets the rest.
        variants: Every variant of the model in the order of its declaration.

    Raises:
        ValueError: A share is none, the shares are over 100 together, or one is for the baseline
            or for an unknown variant.
    """
    candidates = [name for name in variants if name != baseline]
    unknown = sorted(set(split) - set(candidates))
    if unknown:
        raise ValueError(f"shares for {', '.join(unknown)}, which are no candidates")
    points = [(name, basis_points(split.get(name, 0.0))) for name in candidates]
    rest = TOTAL - sum(share for _, share in points)
    if rest < 0:
        raise ValueError("shares of at most 100 together")
    laid = [*points[0::2], (baseline, rest), *reversed(points[1::2])]
    return [(name, share) for name, share in laid if share > 0]
