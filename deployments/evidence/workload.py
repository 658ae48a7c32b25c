"""Workload of a run: the traffic that its proofs were made on, and whether it has changed. Pure.

A profile says how the pairs of a proof were distributed: all of them over the slices, and those of
a slice over scripts and lengths. Each of these distributions is a stream with a test of its own
(`penumbra.monitoring.stats.shift`). Every candidate pair counts, also if its prompt had its bet.
Only what clients ask is looked at: lengths of answers would move with who answers, for whose
answers are seen is decided by the stage, the cohort and the channels that were released.

Reading order: Workload.take, Workload.fix, Workload.left.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.spec import AdvanceRules
from penumbra.monitoring.observations import Pair
from penumbra.monitoring.signals.writing import WRITINGS
from penumbra.monitoring.stats.shift import ShiftTest

ALPHA = 0.01
"""Probability that any proof of a run is called stale although its workload stayed as it was."""
LEAST_PAIRS = 300
"""Least pairs of a profile, and of those that are compared with it. Of traffic that spreads over
twelve categories so many lie within .2 of it, but for a chance of one in a million."""
UNKNOWN = "unknown"
"""Category of slices and scripts that are none of those that are known."""
LONGEST_BITS = 24
"""Lengths of more binary digits are in one bucket."""


class Feature(StrEnum):
    """Features of a workload."""

    SLICES = "slices"
    """The slice of each pair; of all slices together."""
    SCRIPT = "script"
    PROMPT_LENGTH = "prompt length"


FEATURES_OF_SLICE = len(Feature) - 1


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Present figures of one feature."""

    slice: str
    """`AGGREGATE` for all slices together."""
    feature: Feature
    pairs: int
    """Pairs of the profile; 0 before it is complete."""
    distance: float | None
    """Between the latest pairs and the profile; None before it is complete."""


class _Stream:
    """One feature of a slice, or of all slices together."""

    def __init__(self, gates: AdvanceRules, boundary: float) -> None:
        self._gates = gates
        self._boundary = boundary
        self._width = max(gates.slice_pairs, LEAST_PAIRS)
        self.forget()

    def forget(self) -> None:
        """Begin a new profile."""
        self._counts: list[Counter[str]] = []
        self._recent: deque[tuple[str, ...]] = deque(maxlen=self._width)
        self._is_proven = False
        self._tests: list[ShiftTest] = []
        self._since: float | None = None
        """Unix seconds of the first pair since which all find the latest ones off the profile."""
        self._seen_at = 0.0
        """Unix seconds of the last pair."""

    @property
    def pairs(self) -> int:
        return self._counts[0].total() if self._tests else 0

    @property
    def distance(self) -> float | None:
        return min((test.distance for test in self._tests), default=None)

    def fix(self) -> None:
        """Take the profile, as soon as there are enough pairs for one."""
        self._is_proven = True
        if self._counts and self._counts[0].total() >= self._width:
            self._tests = [
                ShiftTest(counts, recent, self._gates.workload_shift, self._gates.horizon)
                for counts, recent in zip(
                    self._counts, zip(*self._recent, strict=True), strict=True
                )
            ]

    def take(self, categories: tuple[str, ...], at: float) -> None:
        """Count one pair; its category by each division of the feature."""
        if self._tests:
            for test, category in zip(self._tests, categories, strict=True):
                test.take(category)
            self._since = (self._since or at) if self._is_away() else None
            self._seen_at = at
            return
        self._counts = self._counts or [Counter() for _ in categories]
        for counts, category in zip(self._counts, categories, strict=True):
            counts[category] += 1
        self._recent.append(categories)
        if self._is_proven:
            self.fix()

    def left(self) -> str | None:
        """Tell how the workload has left the profile; None if it has not, or not for long."""
        lasting = self._gates.workload_seconds
        if self._since is None or self._seen_at - self._since < lasting:
            return None
        nearest = min(self._tests, key=lambda test: test.distance)
        grown = nearest.grown
        if grown is None:
            return None
        category, now, then = grown
        return f"{category} {now:.0%} of the latest {self._width} pairs, was {then:.0%}"

    def _is_away(self) -> bool:
        least, boundary = self._gates.workload_shift, self._boundary
        return all(test.distance > least and test.evidence >= boundary for test in self._tests)


class Workload:
    """The workload of a run.

    H0: given the past, the distribution of each feature of a pair is within `workload_shift` (total
    variation) of the profile. Guarantee: under H0, P(`left` ever names anything within the horizon)
    <= `ALPHA`, by the union over all streams. A length is compared by two divisions in powers of
    four, which are a factor of two apart, and has left its profile only by both: where lengths lie
    close to a border of the one, they do not by the other.

    Args:
        slices: Every slice of the model.
        gates: The distance and the time that matter, and the pairs of a proof.
    """

    def __init__(self, slices: Iterable[str], gates: AdvanceRules) -> None:
        self._gates = gates
        self._slices = frozenset(slices)
        self._boundary = (1 + FEATURES_OF_SLICE * len(self._slices)) / ALPHA
        self._streams: dict[tuple[str, Feature], _Stream] = {}
        self.proven: set[str] = set()
        """Slices whose profile was taken; also `AGGREGATE`."""

    def take(self, pair: Pair, at: float) -> None:
        """Count a candidate pair.

        Args:
            pair: The pair; what it does not tell is not counted.
            at: Unix seconds.
        """
        if pair.slice not in self._slices:
            self._stream(AGGREGATE, Feature.SLICES).take((UNKNOWN,), at)
            return
        self._stream(AGGREGATE, Feature.SLICES).take((pair.slice,), at)
        for feature, categories in _told(pair):
            self._stream(pair.slice, feature).take(categories, at)

    def fix(self, name: str) -> None:
        """Take the profile of a slice, or of all (`AGGREGATE`), when it is proven.

        It is made of the pairs since the beginning, or since `forget`. A feature that fewer of them
        told than a proof takes (`LEAST_PAIRS`) has the profile of the first so many that tell it.
        """
        if name in self.proven:
            return
        self.proven.add(name)
        for (slice_name, _), stream in self._streams.items():
            if slice_name == name:
                stream.fix()

    def forget(self, name: str) -> None:
        """Begin the profile of a slice, or of all slices, anew."""
        self.proven.discard(name)
        for (slice_name, _), stream in self._streams.items():
            if slice_name == name:
                stream.forget()

    def left(self) -> dict[str, str]:
        """Tell of each slice whose workload has left its profile how; also of `AGGREGATE`."""
        found: dict[str, str] = {}
        for (name, feature), stream in self._streams.items():
            told = stream.left()
            if told is not None:
                found.setdefault(name, f"{feature}: {told}")
        return found

    def features(self) -> tuple[FeatureView, ...]:
        """List the figures of all features that were told."""
        return tuple(
            FeatureView(name, feature, stream.pairs, stream.distance)
            for (name, feature), stream in self._streams.items()
        )

    def _stream(self, name: str, feature: Feature) -> _Stream:
        stream = self._streams.get((name, feature))
        if stream is None:
            stream = self._streams[name, feature] = _Stream(self._gates, self._boundary)
            if name in self.proven:
                stream.fix()
        return stream


def _told(pair: Pair) -> Iterator[tuple[Feature, tuple[str, ...]]]:
    """The features that a pair tells, with its category by each division."""
    if pair.script:
        yield Feature.SCRIPT, (pair.script if pair.script in WRITINGS else UNKNOWN,)
    if pair.prompt_tokens:
        yield Feature.PROMPT_LENGTH, _lengths(pair.prompt_tokens)


def _lengths(tokens: int) -> tuple[str, str]:
    """The buckets of a length: from 1, 4, 16, ... on, and from 2, 8, 32, ... on."""
    bits = min(tokens.bit_length(), LONGEST_BITS)
    return _bucket((bits - 1) // 2 * 2), _bucket(bits // 2 * 2 - 1)


def _bucket(exponent: int) -> str:
    """`64 to 255 tokens`; the exponent of the least length, or -1 for 1 alone."""
    if exponent < 0:
        return "1 token"
    return f"{1 << exponent} to {(4 << exponent) - 1} tokens"
