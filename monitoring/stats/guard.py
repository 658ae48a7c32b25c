"""Guard of one signal: evidence against a candidate over all slices, and proof for it. Pure.

Reading order: GuardSpec, Guard.observe, Guard.evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from penumbra.monitoring.stats.betting import BetSums, Table
from penumbra.monitoring.stats.stream import SUSPICIOUS, Stream, StreamView
from penumbra.monitoring.stats.wealth import START

__all__ = [
    "Guard", "GuardSpec", "StreamView", "Sums", "most_suspect", "named_by_e_bh", "sums_of_counts",
]  # fmt: skip

AGGREGATE_WEIGHT = 0.5
"""Weight of the aggregate in the average over streams; the slices share the rest equally."""
LEAST_HORIZON = 1000
"""Least horizon of a slice, however small its share."""


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """Specification of a guard, fixed before the first observation is seen."""

    tolerances: Mapping[str, float]
    """Slice -> largest mean that is within tolerance; names every known slice."""
    default_tolerance: float
    """Tolerance of an unknown slice, which counts in the aggregate only."""
    low: float
    """Least possible observation."""
    high: float
    """Largest possible observation; larger is worse."""
    alpha: float
    """Bound on the probability of a false alarm within the horizon."""
    horizon: int = 100_000
    """Number of observations, over all slices, for which `alpha` holds."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Slice -> expected share of the observations; the others share the rest equally."""
    alpha_promotion: float = 0.05
    """Bound on the probability that a slice beyond tolerance is ever proven; intervals miss with
    this probability."""

    def sums(self) -> "Sums":
        """Makes an empty batch, to be filled and then folded into a guard."""
        return Sums(self)

    def horizon_of(self, name: str) -> float:
        """Returns the number of observations of one slice within the horizon."""
        rest = [other for other in self.tolerances if other not in self.shares]
        given = sum(share for other, share in self.shares.items() if other in self.tolerances)
        equal = max(0.0, 1.0 - given) / len(rest) if rest else 0.0
        return max(LEAST_HORIZON, self.shares.get(name, equal) * self.horizon)


class Sums:
    """A batch of observations for a guard of the same spec; made by `GuardSpec.sums`.

    Merging is commutative, and associative up to the rounding of float addition. The end of a batch
    must not depend on the values in it (a time or a number of observations may end it), because the
    inflow of the whole batch comes in at its beginning.
    """

    __slots__ = ("_spec", "_tables", "by_slice")

    def __init__(self, spec: GuardSpec) -> None:
        self.by_slice: dict[str, BetSums] = {}
        self._spec = spec
        self._tables: dict[float, Table] = {}

    def add(self, slice_name: str, value: float, times: int = 1) -> None:
        """Adds an observation, or several equal ones.

        Raises:
            ValueError: The value is outside the range or not a number, or `times` is negative.
        """
        if times < 0:
            raise ValueError(f"found {times} observations, wanted none or more")
        spec = self._spec
        tolerance = spec.tolerances.get(slice_name, spec.default_tolerance)
        table = self._tables.get(tolerance)
        if table is None:
            table = self._tables[tolerance] = Table(tolerance, spec.low, spec.high)
        if times:
            self.put(slice_name, table.bet(value, times))

    def put(self, slice_name: str, bet_sums: BetSums) -> None:
        """Adds sums to one slice."""
        self.by_slice.setdefault(slice_name, BetSums()).add(bet_sums)

    def merge(self, other: "Sums") -> None:
        """Adds another batch."""
        for slice_name, bet_sums in other.by_slice.items():
            self.put(slice_name, bet_sums)


class Guard:
    """Restarting e-process over the slices and their aggregate, with proofs and intervals.

    H0: in every slice the mean of each observation, given the past, is at most its tolerance.
    Guarantee: under H0, P(`is_tripped` within the horizon) <= alpha, however often one looks,
    whatever the dependence between slices and the drift of the traffic's mix: averaging is the one
    admissible merge of e-processes under arbitrary dependence. The aggregate bets on what a slice
    lies over *its own* tolerance, so a move of traffic to harder slices is no evidence.
    Assumes that each prompt (or session) is observed once. State does not grow with n.

    `observe` is `fold` of a batch of one, bit for bit; larger batches let the inflow in at their
    beginning and add some per cent of delay (reference: +5 % at 60 observations).
    """

    def __init__(self, spec: GuardSpec) -> None:
        self.spec = spec
        self._tables = {
            name: Table(tolerance, spec.low, spec.high)
            for name, tolerance in spec.tolerances.items()
        }
        self._default = Table(spec.default_tolerance, spec.low, spec.high)
        self._streams = {name: self._stream(spec.horizon_of(name)) for name in spec.tolerances}
        self._aggregate = self._stream(spec.horizon)
        self._tolerances_total = 0.0
        self.is_tripped = False
        """Latched: whether the evidence has ever reached the boundary."""

    @property
    def boundary(self) -> float:
        """Evidence at which the guard trips."""
        return 1.0 / self.spec.alpha

    @property
    def evidence(self) -> float:
        """Weighted average over the streams; 1/2 at n = 0."""
        if not self._streams:
            return self._aggregate.evidence.value
        slices = sum(stream.evidence.value for stream in self._streams.values())
        share = (1.0 - AGGREGATE_WEIGHT) / len(self._streams)
        return AGGREGATE_WEIGHT * self._aggregate.evidence.value + share * slices

    def observe(self, slice_name: str, value: float) -> None:
        """Bets on one observation.

        Raises:
            ValueError: The value is outside the range, or not a number.
        """
        table = self._tables.get(slice_name, self._default)
        bet_sums = table.bet(value)
        self._take(slice_name, table.tolerance, bet_sums)
        self._aggregate.take(bet_sums)
        self._latch()

    def fold(self, sums: Sums) -> None:
        """Bets on a batch that another process has summed up."""
        total = BetSums()
        for slice_name, bet_sums in sorted(sums.by_slice.items()):
            table = self._tables.get(slice_name, self._default)
            self._take(slice_name, table.tolerance, bet_sums)
            total.add(bet_sums)
        self._aggregate.take(total)  # one batch: slice by slice, the order would make a difference
        self._latch()

    def set_tolerance(self, name: str, tolerance: float) -> None:
        """Sets the tolerance of a slice that nothing was observed of yet.

        Raises:
            KeyError: The slice is not known.
            ValueError: It has observations, or the tolerance is outside the range.
        """
        if self._streams[name].seen.count:
            raise ValueError(f"{name} has observations: its tolerance is fixed")
        self._tables[name] = Table(tolerance, self.spec.low, self.spec.high)
        self.spec = replace(self.spec, tolerances={**self.spec.tolerances, name: tolerance})

    def culprits(self, fdr: float = 0.1) -> tuple[str, ...]:
        """Names the slices beyond tolerance, worst first, with this false discovery rate (e-BH).

        Source: e-BH (arXiv 2009.02824).
        """
        return named_by_e_bh(self.evidence_by_slice(), fdr)

    def evidence_by_slice(self) -> dict[str, float]:
        """Returns the evidence against each known slice."""
        return {name: stream.evidence.value for name, stream in self._streams.items()}

    def suspicious(self) -> tuple[str, ...]:
        """Names the slices whose evidence calls for a closer look."""
        return tuple(
            name for name, each in self._streams.items() if each.evidence.value >= SUSPICIOUS
        )

    def suspect(self) -> str | None:
        """Names the slice with the most evidence: a hint, for when no culprit is proven.

        None if no slice has more evidence than it began with.
        """
        return most_suspect(self.evidence_by_slice())

    def slice(self, name: str) -> StreamView:
        """Returns the figures of a known slice.

        Raises:
            KeyError: The slice is not known.
        """
        return self._streams[name].view(self.spec.tolerances[name])

    def aggregate(self) -> StreamView:
        """Returns the figures of all slices together."""
        count = self._aggregate.seen.count
        tolerance = self._tolerances_total / count if count else self.spec.default_tolerance
        return self._aggregate.view(tolerance)

    def dump(self) -> dict[str, Any]:
        """Returns the state in JSON types; `restore` continues from it bit for bit."""
        return {
            "is_tripped": self.is_tripped,
            "tolerances_total": self._tolerances_total,
            "aggregate": self._aggregate.dump(),
            "slices": {name: stream.dump() for name, stream in self._streams.items()},
        }

    @classmethod
    def restore(cls, spec: GuardSpec, dumped: Mapping[str, Any]) -> Self:
        """Restores a guard from its dumped state.

        Raises:
            KeyError: The state is that of another spec.
        """
        guard = cls(spec)
        guard.is_tripped = bool(dumped["is_tripped"])
        guard._tolerances_total = float(dumped["tolerances_total"])
        guard._aggregate.load(dumped["aggregate"])
        for name, stream in guard._streams.items():
            stream.load(dumped["slices"][name])
        return guard

    def _take(self, slice_name: str, tolerance: float, bet_sums: BetSums) -> None:
        stream = self._streams.get(slice_name)
        if stream is not None:
            stream.take(bet_sums)
        self._tolerances_total += tolerance * bet_sums.count

    def _stream(self, horizon: float) -> Stream:
        return Stream(horizon, self.spec.low, self.spec.high, self.spec.alpha_promotion)

    def _latch(self) -> None:
        self.is_tripped = self.is_tripped or self.evidence >= self.boundary


def named_by_e_bh(evidence: Mapping[str, float], fdr: float) -> tuple[str, ...]:
    """Names the slices of these e-values that are beyond tolerance, worst first.

    Source: e-BH (arXiv 2009.02824). The largest r with S_(r) >= K / (r fdr). Guarantee: of the
    slices named, at most `fdr` falsely, in expectation.
    """
    ranked = sorted(evidence, key=lambda name: (-evidence[name], name))
    named = 0
    for rank, name in enumerate(ranked, start=1):
        if evidence[name] >= len(ranked) / (rank * fdr):
            named = rank
    return tuple(ranked[:named])


def most_suspect(evidence: Mapping[str, float]) -> str | None:
    """Names the slice with the most evidence; None if none has more than it began with."""
    worst = max(evidence, key=lambda name: evidence[name], default=None)
    return worst if worst is not None and evidence[worst] > START else None


def sums_of_counts(spec: GuardSpec, slice_name: str, zeros: int, ones: int) -> Sums:
    """Makes a batch of a {0, 1} signal.

    Args:
        spec: The guard's specification.
        slice_name: The slice of the observations.
        zeros: Number of observations that are 0.
        ones: Number of observations that are 1.
    """
    sums = spec.sums()
    sums.add(slice_name, 0.0, zeros)
    sums.add(slice_name, 1.0, ones)
    return sums
