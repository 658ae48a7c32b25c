"""E-process on the failures of one candidate, cheap enough for the byte path. Pure."""

from collections.abc import Iterable

from penumbra.monitoring.stats.betting import BETS, bets_against
from penumbra.monitoring.stats.wealth import START, inflow_of

HORIZON = 100_000
"""Requests for which the guarantee holds, if no other number is given."""


class FailureProcess:
    """Restarting e-process on {0, 1}: 1 is a failed request.

    H0: each request, given the past, fails with probability at most the tolerance. Under H0 it
    trips within the horizon (requests) with probability at most alpha. With tolerance .005 and
    alpha .002 it trips after 2 requests that all fail, and after a median of 3 if half of them do.

    Args:
        tolerance: In (0, 1).
        alpha: In (0, 1).
        horizon: Requests for which the guarantee holds, 1 or more; beyond, there is at most about
            one false trip in 2 horizon / alpha requests.

    Raises:
        ValueError: One of them is not.
    """

    __slots__ = ("_boundary", "_fail", "_inflow", "_pass", "_wealth", "is_tripped")

    def __init__(self, tolerance: float, alpha: float, horizon: int = HORIZON) -> None:
        for name, value in (("tolerance", tolerance), ("alpha", alpha)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"found the {name} {value}, wanted 0 < it < 1")
        if horizon < 1:
            raise ValueError(f"found the horizon {horizon}, wanted 1 or more")
        bets = bets_against(tolerance, 0.0)
        self._fail = tuple(1.0 + bet * (1.0 - tolerance) for bet in bets)
        self._pass = tuple(1.0 - bet * tolerance for bet in bets)
        self._inflow = inflow_of(horizon)
        self._wealth = [START] * BETS
        self._boundary = BETS / alpha
        self.is_tripped = False
        """Latched."""

    @property
    def evidence(self) -> float:
        """Mean over the bets; begins anew after a trip."""
        return sum(self._wealth) / BETS

    def observe(self, is_failure: bool) -> bool:
        """Bet on one request; whether it has tripped, now or before."""
        factors = self._fail if is_failure else self._pass
        inflow = self._inflow
        self._wealth = [
            (wealth + inflow) * factor for wealth, factor in zip(self._wealth, factors, strict=True)
        ]
        if sum(self._wealth) >= self._boundary:
            self.is_tripped = True
            self._wealth = [START] * BETS  # what happened is latched; wealth need not overflow
        return self.is_tripped

    def would_trip(self, passes: Iterable[int]) -> bool:
        """Whether it trips if these requests come next; changes nothing.

        Args:
            passes: One entry for each further failure, in order: the requests before it, since the
                failure before, that pass.
        """
        wealth = self._wealth
        for count in passes:
            wealth = [
                (_after(value, count, factor, self._inflow) + self._inflow) * fail
                for value, factor, fail in zip(wealth, self._pass, self._fail, strict=True)
            ]
            if sum(wealth) >= self._boundary:
                return True
        return False


def _after(wealth: float, count: int, factor: float, inflow: float) -> float:
    """The wealth after `count` passes: w -> (w + inflow) x factor, so often, in closed form."""
    if factor == 1.0:
        return wealth + count * inflow
    power = factor**count
    return wealth * power + inflow * factor * (1.0 - power) / (1.0 - factor)
