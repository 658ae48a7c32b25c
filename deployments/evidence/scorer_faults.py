"""Faults of the candidate's scorer, from its tests and from pairs that were arbitrated. Pure."""

from collections import deque
from math import fsum

from penumbra.deployments.rollouts.findings import UnfitScorer
from penumbra.monitoring.observations import Pair, ScorerTest
from penumbra.monitoring.signals.faithfulness import ScorerFault, arbitrate

ARBITRATED = 100
"""Pairs that are remembered of those that the baseline's prefill arbitrated."""


class ScorerFaults:
    """Faults that were found in the candidate's scorer in one run."""

    def __init__(self) -> None:
        self._tests: dict[str, ScorerTest] = {}
        """Source -> its last test."""
        self._apart: deque[tuple[float, float]] = deque(maxlen=ARBITRATED)

    def take_test(self, source: str, test: ScorerTest) -> None:
        """Take a test of the candidate's scorer; the last one of each source counts."""
        self._tests[source] = test

    def take_pair(self, pair: Pair) -> None:
        """Take a pair; only one that was arbitrated tells anything."""
        if pair.decode_apart is not None and pair.prefill_apart is not None:
            self._apart.append((pair.decode_apart, pair.prefill_apart))

    @property
    def tested(self) -> UnfitScorer | None:
        """Fault that the last tests found; None: a fit scorer, or no test."""
        for source, test in self._tests.items():
            if test.fault in (ScorerFault.SCORER, ScorerFault.BOTH):
                detail = f"the candidate's scorer is unfit, by a test of {source}: {test.detail}"
                return UnfitScorer(detail, test.fault == ScorerFault.BOTH)
        return None

    def unfit(self, *, has_gap: bool) -> UnfitScorer | None:
        """The reason why displacement and the decode gap say nothing; None: they count.

        Args:
            has_gap: Whether the decode gap's guardrail has tripped: then the pairs tell which part
                of the candidate is at fault.
        """
        if self.tested is not None or not has_gap or not self._apart:
            return self.tested
        decode_apart = fsum(one for one, _ in self._apart) / len(self._apart)
        prefill_apart = fsum(other for _, other in self._apart) / len(self._apart)
        fault = arbitrate(decode_apart, prefill_apart)
        if fault is ScorerFault.DECODE:
            return None
        return UnfitScorer(
            "the candidate's prefill contradicts its decoding: from the baseline's prefill the one "
            f"is {prefill_apart:.3g} away, the other {decode_apart:.3g}",
            fault is ScorerFault.BOTH,
        )
