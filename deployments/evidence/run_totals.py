"""Totals of a run: diagnostics that are reported but never tested, and its worst pairs. Pure."""

from collections import Counter

from penumbra.deployments.rollouts.spec import LATENCY
from penumbra.monitoring.observations import Pair, Shed, Signal, no_counterpart

WORST = 20
"""Number of worst pairs that are kept."""


_MOST = 1e100
"""Figures are cut here, so that no sum of them overflows."""


class RunTotals:
    """Sums over the candidate pairs of a run."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        """Sums of figures of pairs, and of engine_seconds; `NAME_count` counts the terms."""
        self.asked = 0
        """Number of pairs, repeats included."""
        self.missing = 0
        """Number of these without a usable score or answer."""
        self.repeats = 0
        """Pairs that were not bet on: their prompt or session had its bet."""
        self.outside = 0
        """Pairs of slices outside of the rollout's scope, which count for nothing."""
        self.sheds: Counter[str] = Counter()
        self.uncompared: Counter[tuple[str, str, str]] = Counter()
        """(slice, route, reason) -> requests that cannot be compared."""
        self.without_counterpart: dict[Signal, Counter[str]] = {
            signal: Counter() for signal in LATENCY
        }
        """Latency -> slice -> live answers that were not judged by it."""
        self.failed: Counter[str] = Counter()
        """Harm check -> pairs in which only the candidate failed it."""
        self.worst: list[Pair] = []

    @property
    def missing_ratio(self) -> float:
        """Share of the pairs without a usable score or answer; 0 before the first pair."""
        return self.missing / self.asked if self.asked else 0.0

    def mean(self, name: str) -> float | None:
        """Returns the mean of kl, agreement, divergence or a gap; None without any value."""
        count = self.sums[f"{name}_count"]
        return self.sums[name] / count if count else None

    def add(self, pair: Pair) -> None:
        """Adds one candidate pair."""
        self.asked += 1
        self.missing += pair.missing is not None
        self._sum("kl", pair.kl)
        self._sum("agreement", pair.agreement)
        self._sum("divergence", pair.divergence)
        self._sum("own_gap", pair.own_gap)
        self._sum("baseline_gap", pair.baseline_gap)
        self._sum("engine_seconds", pair.engine_seconds)
        self.failed.update(set(pair.failed) - set(pair.failed_baseline))
        self._rank(pair)

    def shed(self, shed: Shed) -> None:
        """Adds requests that were not compared."""
        for signal, counts in self.without_counterpart.items():
            if shed.reason == no_counterpart(signal):
                counts[shed.slice] += shed.count
                return
        self.sheds[shed.reason] += shed.count
        if shed.route:
            self.uncompared[shed.slice, shed.route, shed.reason] += shed.count

    def _sum(self, name: str, value: float | None) -> None:
        if value is not None:
            cut = min(max(value, -_MOST), _MOST)
            self.sums[name] += cut  # type: ignore[assignment]  # a Counter takes floats
            self.sums[f"{name}_count"] += 1

    def _rank(self, pair: Pair) -> None:
        if badness(pair) <= 0:
            return
        if len(self.worst) == WORST and badness(pair) <= badness(self.worst[-1]):
            return
        self.worst.append(pair)
        self.worst.sort(key=badness, reverse=True)  # stable: of equals, the first stays first
        del self.worst[WORST:]


def badness(pair: Pair) -> float:
    """Rates the candidate's answer in [0, 2.1], larger is worse: harm first, then its scores."""
    if pair.not_finite:
        return 2.0
    harm = 1.0 if pair.missing is not None else float(max(0, pair.harm or 0))
    return harm + (pair.displacement or 0.0) + max(0.0, pair.decode_gap or 0.0)
