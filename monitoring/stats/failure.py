"""The failure process of one candidate, small enough for the byte path. Pure."""

from monitoring.stats.betting import BETS, bets_against

HORIZON = 100_000


class FailureProcess:
    """Restarting e-process on {0, 1}: did the request fail?

    H0: each request, given the past, fails with probability at most the tolerance. Under H0 it
    trips within the horizon (requests) with probability at most alpha. With tolerance .005 and
    alpha .002 it trips after 2 requests that all fail, and after a median of 5 if half of them do.

    Args:
        tolerance: In (0, 1).
        alpha: In (0, 1).
    """

    __slots__ = ("_boundary", "_fail", "_pass", "_wealth", "is_tripped")

    def __init__(self, tolerance: float, alpha: float) -> None:
        bets = bets_against(tolerance, 0.0)
        self._fail = tuple(1.0 + bet * (1.0 - tolerance) for bet in bets)
        self._pass = tuple(1.0 - bet * tolerance for bet in bets)
        self._wealth = [0.5] * BETS
        self._boundary = BETS / alpha
        self.is_tripped = False
        """Latched."""

    def observe(self, is_failure: bool) -> bool:
        """Bet on one request; whether it has tripped, now or before."""
        factors = self._fail if is_failure else self._pass
        inflow = 0.5 / HORIZON
        self._wealth = [
            (wealth + inflow) * factor for wealth, factor in zip(self._wealth, factors, strict=True)
        ]
        if sum(self._wealth) >= self._boundary:
            self.is_tripped = True
            self._wealth = [0.5] * BETS  # what happened is latched; wealth need not overflow
        return self.is_tripped
