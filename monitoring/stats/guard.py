"""One guardrail's statistics: evidence against a candidate over all slices, and proof for it. Pure.

Reading order: GuardSpec, Guard.observe, Guard.evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from monitoring.stats.betting import Table, Tally
from monitoring.stats.intervals import interval
from monitoring.stats.wealth import Evidence, Proof

AGGREGATE_WEIGHT = 0.5
"""Of the average over streams; the slices share the rest equally."""
LEAST_HORIZON = 1000
"""Of a slice, however small its share."""


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """What is judged, fixed before the first observation is seen."""

    tolerances: Mapping[str, float]
    """Slice -> largest mean that is within tolerance; every slice that is known."""
    default_tolerance: float
    """Of a slice that is not known: it counts in the aggregate only."""
    low: float
    """Least possible observation."""
    high: float
    """Largest possible observation; larger is worse."""
    alpha: float
    """Bound on the probability of a false alarm within the horizon."""
    horizon: int = 100_000
    """Observations over all slices."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Slice -> expected share of the observations; the others share the rest equally."""
    alpha_promotion: float = 0.05
    """Bound on the probability that a slice beyond tolerance is ever proven; intervals miss with
    this probability."""

    def horizon_of(self, name: str) -> float:
        """Observations of one slice within the horizon."""
        rest = [other for other in self.tolerances if other not in self.shares]
        given = sum(share for other, share in self.shares.items() if other in self.tolerances)
        equal = max(0.0, 1.0 - given) / len(rest) if rest else 0.0
        return max(LEAST_HORIZON, self.shares.get(name, equal) * self.horizon)


@dataclass(frozen=True, slots=True)
class StreamView:
    """Where one stream stands."""

    count: int
    mean: float | None
    """None without observations."""
    tolerance: float
    """The aggregate's is the mean of the tolerances of what was observed."""
    evidence: float
    proof: float
    is_proven: bool
    lower: float
    upper: float


class Sums:
    """A batch of observations for a guard of the same spec. Adding is commutative."""

    __slots__ = ("tallies",)

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}

    def put(self, slice_name: str, tally: Tally) -> None:
        """Add to one slice."""
        self.tallies.setdefault(slice_name, Tally()).add(tally)

    def merge(self, other: "Sums") -> None:
        """Add another batch."""
        for slice_name, tally in other.tallies.items():
            self.put(slice_name, tally)


class _Stream:
    """One slice, or the aggregate."""

    __slots__ = ("evidence", "proof", "seen")

    def __init__(self, horizon: float) -> None:
        self.evidence = Evidence(horizon)
        self.proof = Proof()
        self.seen = Tally()

    def take(self, tally: Tally) -> None:
        self.evidence.take(tally)
        self.proof.take(tally)
        self.seen.count += tally.count
        self.seen.total += tally.total
        bins = self.seen.bins
        for index, count in tally.bins.items():
            bins[index] = bins.get(index, 0) + count

    def dump(self) -> dict[str, Any]:
        return {
            "wealth": list(self.evidence.wealth),
            "proof": list(self.proof.logs),
            "count": self.seen.count,
            "total": self.seen.total,
            "bins": {str(index): count for index, count in self.seen.bins.items()},
        }

    def load(self, dumped: Mapping[str, Any]) -> None:
        self.evidence.wealth = [float(value) for value in dumped["wealth"]]
        self.proof.logs = [float(value) for value in dumped["proof"]]
        self.seen.count = int(dumped["count"])
        self.seen.total = float(dumped["total"])
        self.seen.bins = {int(index): int(count) for index, count in dumped["bins"].items()}


class Guard:
    """Restarting e-process over slices and aggregate; beside it, proofs and intervals.

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
        self._streams = {name: _Stream(spec.horizon_of(name)) for name in spec.tolerances}
        self._aggregate = _Stream(spec.horizon)
        self._tolerances_total = 0.0
        self.is_tripped = False
        """Latched: whether the evidence has ever reached the boundary."""

    @property
    def boundary(self) -> float:
        """Where the guard trips."""
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
        """Bet on one observation.

        Raises:
            ValueError: It is outside the range, or no number.
        """
        table = self._tables.get(slice_name, self._default)
        self._take(slice_name, table.tolerance, table.tally(value))
        self._latch()

    def fold(self, sums: Sums) -> None:
        """Bet on a batch that another process has summed up."""
        for slice_name, tally in sums.tallies.items():
            table = self._tables.get(slice_name, self._default)
            self._take(slice_name, table.tolerance, tally)
        self._latch()

    def sums(self, slice_name: str, value: float, times: int = 1) -> Sums:
        """A batch of equal observations, for `fold` and `Sums.merge`.

        Raises:
            ValueError: The value is outside the range, or no number.
        """
        return sums_of(self.spec, slice_name, value, times)

    def culprits(self, fdr: float = 0.1) -> tuple[str, ...]:
        """Slices beyond tolerance, worst first, with this false discovery rate (e-BH).

        Source: e-BH (arXiv 2009.02824). The largest r with S_(r) >= K / (r fdr).
        """
        ranked = sorted(
            ((stream.evidence.value, name) for name, stream in self._streams.items()),
            key=lambda item: (-item[0], item[1]),
        )
        named = 0
        for rank, (value, _) in enumerate(ranked, start=1):
            if value >= len(ranked) / (rank * fdr):
                named = rank
        return tuple(name for _, name in ranked[:named])

    def slice(self, name: str) -> StreamView:
        """Where a known slice stands.

        Raises:
            KeyError: The slice is not known.
        """
        return self._view(self._streams[name], self.spec.tolerances[name])

    def aggregate(self) -> StreamView:
        """Where all slices together stand."""
        count = self._aggregate.seen.count
        tolerance = self._tolerances_total / count if count else self.spec.default_tolerance
        return self._view(self._aggregate, tolerance)

    def dump(self) -> dict[str, Any]:
        """The state as JSON has it; `restore` goes on bit for bit."""
        return {
            "is_tripped": self.is_tripped,
            "tolerances_total": self._tolerances_total,
            "aggregate": self._aggregate.dump(),
            "slices": {name: stream.dump() for name, stream in self._streams.items()},
        }

    @classmethod
    def restore(cls, spec: GuardSpec, dumped: Mapping[str, Any]) -> Self:
        """The guard that was dumped.

        Raises:
            KeyError: It was one of another spec.
        """
        guard = cls(spec)
        guard.is_tripped = bool(dumped["is_tripped"])
        guard._tolerances_total = float(dumped["tolerances_total"])
        guard._aggregate.load(dumped["aggregate"])
        for name, stream in guard._streams.items():
            stream.load(dumped["slices"][name])
        return guard

    def _take(self, slice_name: str, tolerance: float, tally: Tally) -> None:
        stream = self._streams.get(slice_name)
        if stream is not None:
            stream.take(tally)
        self._aggregate.take(tally)
        self._tolerances_total += tolerance * tally.count

    def _latch(self) -> None:
        self.is_tripped = self.is_tripped or self.evidence >= self.boundary

    def _view(self, stream: _Stream, tolerance: float) -> StreamView:
        spec, seen = self.spec, stream.seen
        lower, upper = interval(seen.bins, spec.low, spec.high, spec.alpha_promotion)
        proof = stream.proof.value
        return StreamView(
            count=seen.count,
            mean=seen.total / seen.count if seen.count else None,
            tolerance=tolerance,
            evidence=stream.evidence.value,
            proof=proof,
            is_proven=proof >= 1.0 / spec.alpha_promotion,
            lower=lower,
            upper=upper,
        )


def sums_of(spec: GuardSpec, slice_name: str, value: float, times: int = 1) -> Sums:
    """A batch of equal observations of one slice.

    Raises:
        ValueError: The value is outside the range, or no number.
    """
    tolerance = spec.tolerances.get(slice_name, spec.default_tolerance)
    sums = Sums()
    if times:
        sums.put(slice_name, Table(tolerance, spec.low, spec.high).tally(value, times))
    return sums


def sums_of_counts(spec: GuardSpec, slice_name: str, zeros: int, ones: int) -> Sums:
    """A batch of a {0, 1} signal.

    Args:
        spec: The guard's.
        slice_name: Where it was observed.
        zeros: How often it was 0.
        ones: How often it was 1.
    """
    sums = sums_of(spec, slice_name, 0.0, zeros)
    sums.merge(sums_of(spec, slice_name, 1.0, ones))
    return sums
