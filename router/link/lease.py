"""Leases: for how long this gateway may go on giving candidates live traffic.

A lease is counted from when it was *asked for*, never from when the answer came: an answer that was
stuck in a buffer grants nothing, whatever it says. A gateway need not be told that the guard is
gone: without answers its leases end.

A gateway without a control process has no guard by its operator's explicit choice (`control_url`
unset: a fixed table, benchmarks): there every model counts as guarded.
"""

import itertools
from collections.abc import Iterable, Mapping

from penumbra.router.link.messages import LeaseGrant, Renew

FIRST_PERIOD_SECONDS = 0.5
"""Seconds between two questions until a lease was granted."""
RENEWALS_A_LEASE = 4
"""Questions within one full lease."""
_SHORTEST_PERIOD_SECONDS = 0.05
_NONE: frozenset[str] = frozenset()
_REMEMBERED = 16
"""Questions whose answer may still come."""


class Lease:
    """The leases of all models, in one gateway process.

    Args:
        is_needed: Whether candidates need a lease; if not, every model is always fresh.
    """

    __slots__ = (
        "_asked", "_asked_last", "_nonces", "_until", "_without", "is_needed", "period_seconds",
    )  # fmt: skip

    def __init__(self, *, is_needed: bool = True) -> None:
        self.period_seconds = FIRST_PERIOD_SECONDS
        """Pause between two questions."""
        self.is_needed = is_needed
        self._until: dict[str, float] = {}
        self._without: dict[str, frozenset[str]] = {}
        self._asked: dict[int, float] = {}
        self._asked_last = float("-inf")
        self._nonces = itertools.count(1)

    def is_fresh(self, model: str, now: float) -> bool:
        """Whether candidates of the model may get live traffic. Called for every request."""
        return now < self._until.get(model, -1.0) or not self.is_needed

    def without(self, model: str) -> frozenset[str]:
        """Return the candidates that the model's lease is not for. Called for every request."""
        return self._without.get(model, _NONE)

    def is_guarding(self, model: str, candidate: str, now: float) -> bool:
        """Whether one candidate may get live traffic."""
        return self.is_fresh(model, now) and candidate not in self.without(model)

    def left_seconds(self, model: str, now: float) -> float:
        """Return for how many seconds the model's lease lasts from now; 0 if it is over."""
        return max(0.0, self._until.get(model, now) - now)

    def ask(
        self,
        now: float,
        stopped: Mapping[str, tuple[str, ...]] | None = None,
        kills: Mapping[str, str] | None = None,
    ) -> Renew:
        """Make the question to send now.

        Args:
            now: Monotonic seconds.
            stopped: Model -> candidates whose evidence has stopped; None: of none.
            kills: Model -> why it was killed in this process itself; None: none was.
        """
        nonce = next(self._nonces)
        self._asked[nonce] = now
        if len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]
        return Renew(nonce, dict(stopped or {}), is_by_candidate=True, kills=dict(kills or {}))

    def answered(self, grant: LeaseGrant) -> None:
        """Take the answer to a question; ignored if not asked here, or asked too long ago."""
        asked_at = self._asked.pop(grant.nonce, None)
        if asked_at is None:
            return
        self.granted(asked_at, grant.seconds, grant.without)
        if self._until and grant.full_seconds > 0:
            period = grant.full_seconds / RENEWALS_A_LEASE
            self.period_seconds = max(_SHORTEST_PERIOD_SECONDS, period)

    def revoke(self) -> None:
        """End all leases, and ignore the answers to earlier questions."""
        self._until, self._without = {}, {}
        self._asked.clear()

    def granted(
        self,
        asked_at: float,
        seconds: Mapping[str, float],
        without: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Replace all leases by those granted; a model that is not named has none.

        Args:
            asked_at: When they were asked for; monotonic seconds.
            seconds: Model -> seconds from then.
            without: Model -> candidates that its lease is not for.
        """
        if asked_at < self._asked_last:
            return  # overtaken by the answer to a later question
        self._asked_last = asked_at
        self._until = {model: asked_at + granted for model, granted in seconds.items()}
        self._without = {model: frozenset(names) for model, names in (without or {}).items()}
