"""Latency of a candidate's answers beside shadow answers of the baseline, without live ones. Pure.

Where the baseline answers no client of a slice, a candidate's live answer is held against the
shadow answer that the baseline gave to the same request. The two are not alike between equal builds
either: one ran at once and under the clients' load, the other later, beside nothing but shadow
requests. But the baseline's own answers stood beside shadow answers of the candidate before, with
the parts of the two builds exchanged. The *floor* of a slice is the ratio that the tolerated share
of those pairs exceeds. A live answer is late if its ratio exceeds factor^2 times the floor.

The square is what a candidate within the factor needs: one that is c times as slow as the baseline
made every ratio of the floor c times smaller, and makes its own c times larger. So a steady
slowness is late from the factor on, as beside live answers, and one that came since from its
square.

Reading order: LatencyFloors.take.
"""

from collections import Counter
from collections.abc import Iterator

from penumbra.deployments.evidence.guardrail_monitor import alpha_of
from penumbra.deployments.rollouts.spec import LATENCY, Calibrate, Guardrail, RolloutSpec
from penumbra.monitoring.observations import AnsweredBy, Pair, Signal
from penumbra.monitoring.stats.tolerance_limit import ToleranceLimit

READING = 0.1
"""Part of a latency guardrail's alpha that is for floors that came out low; the guard has the
other nine tenths."""

TIMES: dict[Signal, tuple[str, ...]] = {
    Signal.TTFT: ("first_ratio", "whole_ratio"),
    Signal.TPOT: ("pace_ratio",),
}
"""Latency -> the fields of a pair that tell of it. Streams and whole answers have floors of their
own."""


class Floor:
    """The floor of one time in one slice.

    Args:
        tolerance: Share of late answers that the guardrail tolerates.
        alpha: Probability that it came out low.
        factor: The guardrail's factor.
    """

    def __init__(self, tolerance: float, alpha: float, factor: float) -> None:
        self.read = ToleranceLimit(tolerance, alpha)
        self._margin = factor**2

    @property
    def latest(self) -> float | None:
        """Ratio to the shadow answer's time beyond which an answer is late; None: not known."""
        return None if self.read.limit is None else self._margin * self.read.limit


class LatencyFloors:
    """The floors of a run, and the answers that were judged by them.

    H0 of the observations that it gives: there is a c, at most the factor, so that the candidate's
    times are distributed as c times the baseline's in the same part (answering the client, or
    shadow), and one block of the floor was read under conditions that made ratios as large as those
    of the pair. Then each observation, given the past, is 1 with at most the tolerance's
    probability, unless a floor came out low, which happens in any slice with at most `READING` of
    the guardrail's alpha.

    Args:
        spec: The rollout's specification.
        slices: Every slice of the model.
    """

    def __init__(self, spec: RolloutSpec, slices: tuple[str, ...]) -> None:
        self._candidate = spec.candidate
        self.floors = {
            guardrail.signal: _floors_of(spec, slices, guardrail)
            for guardrail in spec.guardrails
            if guardrail.signal in LATENCY
        }
        """Latency -> (slice, field of a pair) -> its floor."""
        self.judged: dict[Signal, Counter[str]] = {signal: Counter() for signal in self.floors}
        """Latency -> slice -> live answers that were judged beside a shadow answer."""

    def take(self, pair: Pair) -> Iterator[tuple[Signal, bool]]:
        """Takes a pair that counts: reads floors from it, or judges it.

        Args:
            pair: A pair of candidate and baseline. One that the candidate answered has ratios only
                where its gateway had no answers of the baseline to judge it by.

        Yields:
            Latency, and whether the candidate's answer was late.
        """
        is_live = pair.kind(self._candidate) is AnsweredBy.CANDIDATE
        for signal, floors in self.floors.items():
            for field in TIMES[signal]:
                floor, ratio = floors.get((pair.slice, field)), getattr(pair, field)
                if floor is None or ratio is None:
                    continue
                if not is_live:
                    floor.read.add(ratio)
                elif floor.latest is not None:
                    self.judged[signal][pair.slice] += 1
                    yield signal, ratio > floor.latest


def _floors_of(
    spec: RolloutSpec, slices: tuple[str, ...], guardrail: Guardrail
) -> dict[tuple[str, str], Floor]:
    tolerance, fields = guardrail.tolerance, TIMES[guardrail.signal]
    if isinstance(tolerance, Calibrate):  # displacement's alone
        return {}
    alpha = READING * alpha_of(spec, guardrail) / max(1, len(slices) * len(fields))
    return {
        (name, field): Floor(guardrail.slices.get(name, tolerance), alpha, guardrail.factor)
        for name in slices
        for field in fields
    }
