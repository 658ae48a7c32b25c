"""E-processes: the restarting one against a candidate and the plain one that proves. Pure.

Reading order: EProcess, Proof.
"""

from collections.abc import Sequence
from math import exp, fsum, log

from penumbra.monitoring.stats.betting import BETS, BetSums

CAP = 1e200
"""Cap of the wealth; every boundary is far beneath."""
START = 0.5
"""Wealth at n = 0; what is missing to 1 flows in evenly over the horizon."""
_LARGEST_EXPONENT = 460.0


def inflow_of(horizon: float) -> float:
    """Wealth that flows into a stream with each observation."""
    return (1.0 - START) / horizon


class EProcess:
    """Restarting e-process of one stream: S <- (S + gamma n) exp(sum of log factors), S = 1/2 at 0.

    H0: the mean of each observation, given the past, is at most the tolerance. Under H0,
    S + gamma (N - n) is a non-negative supermartingale that begins at 1, so S reaches 1/a within N
    observations with probability at most a, however often one looks. Beyond N it raises at most
    about one false alarm in 2 N / a observations. The inflow `gamma` lets evidence begin anew at
    every moment, so that long good behaviour does not shield a late regression.

    Source: e-detectors (arXiv 2203.03532).
    """

    __slots__ = ("_inflow", "wealth")

    def __init__(self, horizon: float) -> None:
        self._inflow = inflow_of(horizon)
        self.wealth = [START] * BETS

    def take(self, sums: BetSums) -> None:
        """Bet on a batch of observations; a batch of one is the finest."""
        inflow = self._inflow * sums.count
        for index, sum_of_logs in enumerate(sums.against):
            grown = (self.wealth[index] + inflow) * exp(min(sum_of_logs, _LARGEST_EXPONENT))
            self.wealth[index] = min(grown, CAP)

    @property
    def value(self) -> float:
        """The mean over the bets; 1/2 at n = 0."""
        return fsum(self.wealth) / BETS


class Proof:
    """Plain e-process for the candidate: mean over the bets of exp(sum of log factors), 1 at n = 0.

    H0: the mean of each observation, given the past, is at least the tolerance. Under H0 it is a
    non-negative supermartingale that begins at 1: P(it ever reaches 1/a) <= a.
    """

    __slots__ = ("logs",)

    def __init__(self) -> None:
        self.logs = [0.0] * BETS

    def take(self, sums: BetSums) -> None:
        """Bet on a batch of observations."""
        for index, sum_of_logs in enumerate(sums.favour):
            self.logs[index] += sum_of_logs

    @property
    def value(self) -> float:
        """The evidence for the candidate."""
        return _value(self.logs)


def proof_since(logs: Sequence[float], then: Sequence[float]) -> float:
    """Value of the proof that begins where another one stood: 1 there.

    Under `Proof`'s H0 for the observations since then it is a test martingale like that, if the
    moment was chosen by the past alone.

    Args:
        logs: `Proof.logs` now.
        then: The same at the beginning.
    """
    return _value([now - before for now, before in zip(logs, then, strict=True)])


def _value(logs: Sequence[float]) -> float:
    return exp(min(log_mean_exp(logs), _LARGEST_EXPONENT))


def log_mean_exp(logs: Sequence[float]) -> float:
    """Ln of the mean of exp(logs), safe from overflow."""
    largest = max(logs)
    return largest + log(fsum(exp(value - largest) for value in logs) / len(logs))
