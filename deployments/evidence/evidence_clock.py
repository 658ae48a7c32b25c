"""Clock that only pairs move: the time for which evidence came, and how much of it. Pure.

A stage of a rollout is meant to last for so long *under observation*. Wall time counts nights in
which no request came, outages of the comparator, and steps of a clock. Here each pair adds the time
since the pair before it, of the same comparator, and no more than `longest_gap_seconds`: a gap is
silence, whatever made it, and a step of a clock is a gap.

Each comparator has a clock of its own, which begins at the clock's present time and is moved by its
pairs' times alone; the furthest counts. So two comparators at once count once, one that takes over
from another goes on from there, and their clocks need not agree.

Reading order: EvidenceClock.take, StageClocks.
"""

from penumbra.deployments.rollouts.findings import Flow
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.monitoring.observations import AnsweredBy, Pair

SHORTEST_GAP_SECONDS = 10.0
LONGEST_GAP_SECONDS = 900.0
GAPS_A_STAGE = 20
"""A gap counts for at most this part of a stage's time, between the two bounds."""
_MOST_SOURCES = 256
_MOST_EPOCHS = 256


class EvidenceClock:
    """Time for which pairs came, and their number.

    Args:
        longest_gap_seconds: The most that the time between two pairs counts for.
    """

    def __init__(self, longest_gap_seconds: float) -> None:
        self.seconds = 0.0
        self.pairs = 0
        self._longest = longest_gap_seconds
        self._sources: dict[str, tuple[float, float]] = {}
        """Comparator -> its latest time (Unix seconds), and its own clock; the latest last."""

    @property
    def flow(self) -> Flow:
        """The time and the pairs so far."""
        return Flow(self.seconds, self.pairs)

    def take(self, source: str, at: float) -> float:
        """Count a pair; returns by how much it moved the clock, in seconds.

        Args:
            source: The comparator that made it.
            at: When it did, by its own clock; Unix seconds; 0: it does not say.
        """
        self.pairs += 1
        if at <= 0.0:
            return 0.0
        latest, own = self._sources.pop(source, (at, self.seconds))
        gap = at - latest
        if gap < -self._longest:
            latest = at  # its clock was set back: go on from there
        else:
            own += min(max(gap, 0.0), self._longest)
            latest = max(latest, at)
        self._sources[source] = latest, own
        if len(self._sources) > _MOST_SOURCES:
            del self._sources[next(iter(self._sources))]
        before, self.seconds = self.seconds, max(self.seconds, own)
        return self.seconds - before


class StageClocks:
    """The clocks of a run by which its stages end.

    Args:
        spec: The rollout's specification.
    """

    def __init__(self, spec: RolloutSpec) -> None:
        part = spec.gates.stage_seconds / GAPS_A_STAGE
        longest = min(max(part, SHORTEST_GAP_SECONDS), LONGEST_GAP_SECONDS)
        self._candidate = spec.candidate
        self.all = EvidenceClock(longest)
        """Of all pairs that were bet on."""
        self.live = EvidenceClock(longest)
        """Of those in which the candidate answered the client."""
        self.live_by_epoch: dict[int, Flow] = {}
        """Epoch by which they were decided -> their part of it; 0: it is not told."""

    def take(self, source: str, pair: Pair) -> None:
        """Count a candidate pair that is bet on, made by the comparator `source`."""
        self.all.take(source, pair.at)
        if pair.kind(self._candidate) is AnsweredBy.CANDIDATE:
            seconds = self.live.take(source, pair.at)
            self._add(pair.epoch, Flow(seconds, 1))

    def _add(self, epoch: int, flow: Flow) -> None:
        by_epoch = self.live_by_epoch
        by_epoch[epoch] = by_epoch.get(epoch, Flow()) + flow
        if len(by_epoch) > _MOST_EPOCHS:
            # The oldest of all takes in the next: it counts for no stage that began after it.
            oldest, next_oldest = sorted(each for each in by_epoch if each)[:2]
            by_epoch[oldest] += by_epoch.pop(next_oldest)
