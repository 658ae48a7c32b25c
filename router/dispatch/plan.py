"""The plan of a request: the variants to try, in order, from a decision. Pure.

A candidate that fails before the client has seen anything is replaced by the baseline. The baseline
is asked once more if it refused the connection. Then a candidate answers in its place, but only if
its own flag gives it live traffic and the guard does not object.
"""

from collections.abc import Iterator

import msgspec

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.flags.evaluate import Decision
from penumbra.router.flags.routing_table import ModelSnapshot

_NOT_HANDED_OVER = frozenset({Outcome.REFUSED, Outcome.GATEWAY_LIMIT})


class Plan(msgspec.Struct, frozen=True):
    """The variants to try, best first; the first is the decision's."""

    attempts: tuple[str, ...]
    baseline: str
    slice_name: str = ""
    """The request's slice, by which its observations are counted."""

    def following(self, index: int, outcome: Outcome) -> int | None:
        """Index of the attempt after attempt `index` ended with `outcome`; None if there is none.

        Only a request that was not handed over moves on from the baseline: after any other failure
        it may have done the work, or would fail in the same way again. So does one that goes on
        from a response that another build gave (`UNSUPPORTED`).
        """
        if self.attempts[index] == self.baseline:
            if outcome is Outcome.UNSUPPORTED:
                rest = range(index + 1, len(self.attempts))
                return next((n for n in rest if self.attempts[n] != self.baseline), None)
            has_next = outcome in _NOT_HANDED_OVER and index + 1 < len(self.attempts)
            return index + 1 if has_next else None
        has_baseline_left = self.baseline in self.attempts[index + 1 :]
        return index + 1 if has_baseline_left else None


def plan(
    decision: Decision, model: ModelSnapshot, slice_name: str, *, is_lease_fresh: bool
) -> Plan:
    """Order the attempts for one request."""
    baseline = model.baseline
    if decision.variant != baseline:
        return Plan((decision.variant, baseline, baseline), baseline, slice_name)
    stand_ins = live_candidates(model, slice_name) if is_lease_fresh else ()
    return Plan((baseline, baseline, *stand_ins), baseline, slice_name)


def live_candidates(model: ModelSnapshot, slice_name: str) -> tuple[str, ...]:
    """The candidate that may stand in for the baseline: the one with the largest live share there.

    Shares of targeting rules do not count: such a rule holds for a part of the callers only. Nor do
    those of candidates whose scope is a part of the callers, or of other slices.
    """
    flag = model.flag
    if flag.killed:
        return ()
    kept = {*flag.blocked, *_scoped_elsewhere(model, slice_name)}
    shares = [
        (share, name)
        for name, share in flag.split.items()
        if share > 0 and name not in kept and slice_name not in flag.closed_to(name)
    ]
    return (max(shares)[1],) if shares else ()


def _scoped_elsewhere(model: ModelSnapshot, slice_name: str) -> Iterator[str]:
    for watch in model.watches:
        scope = watch.scope
        if scope is not None and (
            scope.tenants or scope.headers or not scope.has_slice(slice_name)
        ):
            yield watch.candidate
