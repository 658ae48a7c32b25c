"""Test whether the categories of a stream have moved away from a reference. Pure.

Reading order: ShiftTest.take, ShiftTest.evidence, ShiftTest.distance.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from math import fsum

from penumbra.monitoring.stats.betting import BETS, bets_against
from penumbra.monitoring.stats.wealth import START, inflow_of

CAP = 1e100
"""Cap of the wealth; every boundary is far beneath."""
_BETS = bets_against(1.0, 0.0)
"""Bets for a tolerance of 1; divided by another tolerance they are those for it."""


class ShiftTest:
    """Bets that the categories of now are further from the reference than they may be.

    H0: given the past, the distribution of each category is within `least` of the reference, in
    total variation. So the categories of any set have at most the reference's share of them, plus
    `least`. The bet is that those whose share grew have more: which ones is read from the latest
    observations before the next one is seen. It is made only while these are beyond `least`
    themselves; once they are not, what was won is given up. Guarantee: under H0, P(`evidence` ever
    reaches 1/a within the horizon) <= a, however often one looks. Argument: sets and moments of the
    bets are chosen by the past alone, so the wealth is, with what is still to flow in, a
    non-negative supermartingale that begins at 1 (`wealth.EProcess`); giving up only lowers it.

    Args:
        reference: Category -> how often it was observed, in the reference; one at least.
        recent: The latest observations, one at least; so many are looked at from now on as well.
        least: Total variation that is no shift, over 0; from 1 on nothing is one.
        horizon: Observations for which the guarantee holds.

    Raises:
        ValueError: The reference or the recent observations are empty.
    """

    __slots__ = (
        "_above", "_counts", "_inflow", "_least", "_recent", "_reference", "_total", "_wealth",
        "distance",
    )  # fmt: skip

    def __init__(
        self, reference: Mapping[str, int], recent: Iterable[str], least: float, horizon: float
    ) -> None:
        self._reference = dict(reference)
        self._total = sum(self._reference.values())
        self._recent = deque(recent)
        if not self._total or not self._recent:
            raise ValueError("found nothing observed, wanted a reference and recent observations")
        self._counts = Counter(self._recent)
        self._above: set[str] = set()
        """Categories whose share is larger in the latest observations than in the reference."""
        for category in self._counts:
            self._place(category)
        self._least = least
        self._inflow = inflow_of(horizon)
        self._wealth = [START] * BETS
        self.distance = self._distance()
        """Total variation between the latest observations and the reference, in [0, 1]."""

    @property
    def evidence(self) -> float:
        """Mean over the bets; 1/2 at n = 0."""
        return fsum(self._wealth) / BETS

    @property
    def grown(self) -> tuple[str, float, float] | None:
        """The category that grew most, its share in the latest observations and in the reference.

        None if no category grew.
        """
        shares = [
            (name, self._counts[name] / len(self._recent), self._of_reference(name) / self._total)
            for name in sorted(self._above)
        ]
        return max(shares, key=lambda each: each[1] - each[2], default=None)

    def take(self, category: str) -> None:
        """Bet on one observation, and count it among the latest."""
        if self.distance > self._least:
            self._bet(category)
        oldest = self._recent.popleft()
        self._recent.append(category)
        if oldest == category:
            return
        self._counts[oldest] -= 1
        self._counts[category] += 1
        self._place(oldest)
        self._place(category)
        was, self.distance = self.distance, self._distance()
        if self.distance <= self._least < was:
            self._wealth = [min(wealth, START) for wealth in self._wealth]

    def _bet(self, category: str) -> None:
        most = self._reference_share() + self._least  # below 1, like the share that is beyond it
        scale = (float(category in self._above) - most) / most
        self._wealth = [
            min((wealth + self._inflow) * (1.0 + bet * scale), CAP)
            for wealth, bet in zip(self._wealth, _BETS, strict=True)
        ]

    def _place(self, category: str) -> None:
        recent = self._counts[category] * self._total
        if recent > self._of_reference(category) * len(self._recent):
            self._above.add(category)
        else:
            self._above.discard(category)

    def _distance(self) -> float:
        recent = sum([self._counts[category] for category in self._above]) / len(self._recent)
        return recent - self._reference_share()

    def _reference_share(self) -> float:
        return sum([self._of_reference(category) for category in self._above]) / self._total

    def _of_reference(self, category: str) -> int:
        return self._reference.get(category, 0)
