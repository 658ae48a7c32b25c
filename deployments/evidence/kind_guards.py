"""Guards of one signal for each kind of pair, and the one evidence that they make together. Pure.

Which build answered the client decides whose tokens a pair is scored on, and who answered under
traffic. Distance and harm depend on it also where neither build changes. So pairs of either kind
have a guard of their own: tolerances, streams and proofs of one kind never meet those of the other.

Reading order: KindGuards.observe, KindGuards.evidence.
"""

from collections.abc import Container, Mapping
from dataclasses import replace
from math import fsum

from penumbra.monitoring.observations import AnsweredBy, Pair
from penumbra.monitoring.stats.guard import (
    Guard,
    GuardSpec,
    StreamView,
    Sums,
    most_suspect,
    named_by_e_bh,
)

Kind = AnsweredBy | None
"""Kind of pair; None for a signal that is not of pairs."""
PairKinds = tuple[AnsweredBy, ...]
PAIRS: PairKinds = tuple(AnsweredBy)
"""Kinds of pairs that are told apart."""
UNDIVIDED: PairKinds = (AnsweredBy.BASELINE,)
"""The one kind of older versions, which put all pairs together; it explains their decisions."""
REQUESTS: tuple[Kind, ...] = (None,)
"""The one kind of a signal that is not of pairs: it is seen in requests of the candidate."""


def kind_of(pair: Pair, candidate: str, kinds: Container[AnsweredBy]) -> AnsweredBy:
    """Tell the kind of a pair, of those that are told apart."""
    kind = pair.kind(candidate)
    return kind if kind in kinds else AnsweredBy.BASELINE


class KindGuards:
    """The guards of one signal, one for each kind of pair.

    H0: in every slice, and in pairs of either kind, the mean of each observation, given the past,
    is at most the tolerance of that slice and kind. Guarantee: under H0, P(`is_tripped` within the
    horizon) <= alpha. The evidence is the plain average of the guards' evidence: an average of
    supermartingales that begin at 1 is one, whatever the guards have to do with each other. It is
    never less powerful than half of alpha for each.

    Args:
        specs: Kind -> specification of its guard. They differ in tolerances at most; their alpha is
            that of all kinds together.
    """

    def __init__(self, specs: Mapping[Kind, GuardSpec]) -> None:
        self._guards = {kind: Guard(spec) for kind, spec in specs.items()}
        self._evidence = {kind: guard.evidence for kind, guard in self._guards.items()}
        self.is_tripped = False
        """Latched: whether the evidence has ever reached the boundary."""

    def without(self, names: Container[str]) -> "KindGuards":
        """Makes fresh guards with the same tolerances, for all slices but these."""
        return KindGuards(
            {kind: _without(guard.spec, names) for kind, guard in self._guards.items()}
        )

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds that are told apart."""
        return tuple(self._guards)

    @property
    def boundary(self) -> float:
        """Evidence at which the guards trip."""
        return self._first.boundary

    @property
    def evidence(self) -> float:
        """Average over the guards; 1/2 at n = 0."""
        return fsum(self._evidence.values()) / len(self._evidence)

    @property
    def spec(self) -> GuardSpec:
        """Specification of the first guard; the others differ in tolerances at most."""
        return self._first.spec

    def of(self, kind: Kind) -> Guard:
        """Returns the guard of one kind.

        Raises:
            KeyError: This kind is not told apart.
        """
        return self._guards[kind]

    def observe(self, slice_name: str, value: float, kind: Kind) -> None:
        """Bets on one observation.

        Raises:
            ValueError: The value is outside the range, or not a number.
        """
        self._guards[kind].observe(slice_name, value)
        self._note(kind)

    def fold(self, sums: Sums, kind: Kind) -> None:
        """Bets on a batch."""
        self._guards[kind].fold(sums)
        self._note(kind)

    def set_tolerance(self, name: str, tolerance: float, kind: Kind) -> None:
        """Sets the tolerance of a slice in pairs of one kind, before the first of them.

        Raises:
            KeyError: The slice is not known.
            ValueError: It has observations, or the tolerance is outside the range.
        """
        self._guards[kind].set_tolerance(name, tolerance)

    def culprits(self, fdr: float = 0.1) -> tuple[str, ...]:
        """Names the slices beyond tolerance in either kind, with this false discovery rate.

        The e-value of a slice is the average over the kinds.
        """
        return named_by_e_bh(self._evidence_by_slice(), fdr)

    def suspicious(self) -> tuple[str, ...]:
        """Names the slices whose evidence, in either kind, calls for a closer look."""
        found = [name for guard in self._guards.values() for name in guard.suspicious()]
        return tuple(dict.fromkeys(found))

    def suspect(self) -> str | None:
        """Names the slice with the most evidence; None if none has more than it began with."""
        return most_suspect(self._evidence_by_slice())

    def suspect_kind(self) -> Kind:
        """Names the kind of pairs with the most evidence."""
        return max(self._evidence, key=lambda kind: self._evidence[kind])

    def slice(self, name: str, kind: Kind = None) -> StreamView:
        """Returns the figures of a known slice: of one kind, or of all kinds together.

        Raises:
            KeyError: The slice is not known.
        """
        if kind is not None:
            return self._guards[kind].slice(name)
        return together([guard.slice(name) for guard in self._guards.values()])

    def aggregate(self, kind: Kind = None) -> StreamView:
        """Returns the figures of all slices: of one kind, or of all kinds together."""
        if kind is not None:
            return self._guards[kind].aggregate()
        return together([guard.aggregate() for guard in self._guards.values()])

    def _evidence_by_slice(self) -> dict[str, float]:
        found = [guard.evidence_by_slice() for guard in self._guards.values()]
        return {name: fsum(each[name] for each in found) / len(found) for name in found[0]}

    @property
    def _first(self) -> Guard:
        return next(iter(self._guards.values()))

    def _note(self, kind: Kind) -> None:
        self._evidence[kind] = self._guards[kind].evidence
        self.is_tripped = self.is_tripped or self.evidence >= self.boundary


def together(views: list[StreamView]) -> StreamView:
    """Puts the figures of the same stream in all kinds of pairs together.

    The tolerance is the mean of those of what was observed, as the aggregate's is. The proof is the
    least of the kinds that were observed: it says what holds of all of them.
    """
    if len(views) == 1:
        return views[0]
    # Without any observation: that of a kind whose tolerance is read, before the widest default.
    seen = [view for view in views if view.count] or [min(views, key=lambda view: view.tolerance)]
    count = sum(view.count for view in seen)
    bins: dict[int, int] = {}
    for view in seen:
        for index, times in view.bins.items():
            bins[index] = bins.get(index, 0) + times
    weakest = min(seen, key=lambda view: view.proof)
    return replace(
        weakest,
        count=count,
        mean=_weighted([(view.mean or 0.0, view.count) for view in seen]) if count else None,
        tolerance=_weighted([(view.tolerance, view.count or 1) for view in seen]),
        evidence=fsum(view.evidence for view in views) / len(views),
        bins=bins,
        # A history is of one kind: the one that speaks most against the candidate.
        blocks=max(seen, key=lambda view: view.evidence).blocks,
    )


def _weighted(values: list[tuple[float, int]]) -> float:
    if len(values) == 1:
        return values[0][0]
    return fsum(value * weight for value, weight in values) / sum(weight for _, weight in values)


def _without(spec: GuardSpec, names: Container[str]) -> GuardSpec:
    rest = {name: value for name, value in spec.tolerances.items() if name not in names}
    return replace(spec, tolerances=rest)
