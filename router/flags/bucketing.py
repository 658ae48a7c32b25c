"""Bucketing: assigns targeting keys to shares; sticky, alike on every replica, monotone. Pure.

The hash is the one of flagd's `fractional` operator (MurmurHash3 of the CBOR array
`[flag key, targeting key]`), so an exported flag puts every user into the same variant wherever it
is evaluated.

Shares are percents with a resolution of 0.01. They lie on a line of 10 000 basis points. Each
candidate has a **place**, a number that does not change when other candidates come and go. It says
where the candidate's share begins and in which direction it grows:

    place   0                      3 ->             2 ->             4 ->             <- 1
            |----------------------|----------------|----------------|------------------|
            0                    2 500            5 000            7 500           10 000

Place 0 grows from the bottom up, place 1 from the top down, and every further one from a point of
its own up, past the top to the bottom. Where a share meets points that a lower place has taken, it
goes on behind them. The baseline has what is left.

Raising a share therefore moves no targeting key out of the candidate that is raised, nor out of one
with a lower place. Only where shares meet may it move keys of a candidate with a higher place;
places 0 and 1 never meet. Lowering a share to zero, or taking a candidate out, moves no key of
another candidate unless the two had met.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

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


def places(candidates: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """Return the place of every candidate: the known one, else the lowest that is free.

    Args:
        candidates: In the order in which they are declared.
        known: Candidate -> the place that it has; of one that is gone the place is free.
    """
    names = list(candidates)
    kept = {name: known[name] for name in names if name in known}
    taken = frozenset(kept.values())
    free = (place for place in range(len(names)) if place not in taken)
    return {name: kept[name] if name in kept else next(free) for name in names}


def intervals(
    split: Mapping[str, float],
    baseline: str,
    variants: Iterable[str],
    known_places: Mapping[str, int] | None = None,
) -> list[tuple[str, int]]:
    """Lay a split out on the line, bottom first: (variant, basis points), summing to 10 000.

    A variant may have several intervals: the baseline, and a candidate that met another.

    Args:
        split: Candidate -> percent; candidates left out have none.
        baseline: The variant that gets the rest.
        variants: Every variant of the model in the order of its declaration.
        known_places: As in `places`; without any a place follows from the declaration.

    Raises:
        ValueError: A share is none, the shares are over 100 together, or one is for the baseline
            or for an unknown variant; or two candidates have one place.
    """
    candidates = [name for name in variants if name != baseline]
    unknown = sorted(set(split) - set(candidates))
    if unknown:
        raise ValueError(f"shares for {', '.join(unknown)}, which are no candidates")
    points = {name: basis_points(split.get(name, 0.0)) for name in candidates}
    if sum(points.values()) > TOTAL:
        raise ValueError("shares of at most 100 together")
    placed = places(candidates, known_places or {})
    if len(set(placed.values())) < len(placed):
        raise ValueError("two candidates have one place")
    taken: list[tuple[int, int, str]] = []
    for name in sorted(candidates, key=placed.__getitem__):
        taken += list(_take(points[name], placed[name], taken, name))
    return _filled(sorted(taken), baseline)


def _take(
    points: int, place: int, taken: list[tuple[int, int, str]], name: str
) -> Iterator[tuple[int, int, str]]:
    """Take so many free points from the place on, in its direction: (begin, end, name)."""
    for begin, end in _free(place, taken):
        if points <= 0:
            return
        length = min(points, end - begin)
        points -= length
        yield (end - length, end, name) if place == 1 else (begin, begin + length, name)


def _free(place: int, taken: list[tuple[int, int, str]]) -> list[tuple[int, int]]:
    """The free stretches of the line in the order in which a place takes them."""
    free, at = [], 0
    for begin, end, _ in [*sorted(taken), (TOTAL, TOTAL, "")]:
        if begin > at:
            free.append((at, begin))
        at = end
    if place == 1:
        return free[::-1]
    anchor = _anchor(place)
    behind = [(max(begin, anchor), end) for begin, end in free if end > anchor]
    before = [(begin, min(end, anchor)) for begin, end in free if begin < anchor]
    return behind + before


def _anchor(place: int) -> int:
    """Where the share of a place other than 1 begins: 0, then 1/2, 1/4, 3/4, 1/8, 3/8, ..."""
    if place == 0:
        return 0
    level = 1 << (place - 1).bit_length() - 1
    return TOTAL * (2 * (place - 1 - level) + 1) // (2 * level)


def _filled(taken: list[tuple[int, int, str]], baseline: str) -> list[tuple[str, int]]:
    """The stretches in order, neighbours of one variant joined, and the baseline between them."""
    laid: list[tuple[str, int]] = []
    at = 0
    for begin, end, name in [*taken, (TOTAL, TOTAL, baseline)]:
        for variant, length in ((baseline, begin - at), (name, end - begin)):
            if length <= 0:
                continue
            if laid and laid[-1][0] == variant:
                length += laid.pop()[1]
            laid.append((variant, length))
        at = end
    return laid
