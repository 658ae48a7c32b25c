"""Monitor of one guardrail over one run: its guard, quarantines and evidence path. Pure.

After a quarantine the quarantined slices are bet on no more, and fresh guards watch the rest: their
guarantee holds anew for them. The first guards keep the proofs of all slices.

Reading order: GuardrailMonitor.observe, GuardrailMonitor.count_up.
"""

from collections.abc import Mapping

from penumbra.deployments.evidence.evidence_path import EvidencePath
from penumbra.deployments.evidence.kind_guards import (
    PAIRS,
    REQUESTS,
    Kind,
    KindGuards,
    PairKinds,
)
from penumbra.deployments.rollouts.findings import AGGREGATE, Tripped
from penumbra.deployments.rollouts.spec import QUALITY, SAFETY, Action, Guardrail, RolloutSpec
from penumbra.monitoring.observations import Signal
from penumbra.monitoring.signals.decode_gap import LIMIT
from penumbra.monitoring.stats.guard import GuardSpec, sums_of_counts

LOW = {Signal.HARM: -1.0, Signal.DECODE_GAP: -LIMIT}
"""Least value of the signals whose range does not begin at 0."""
HIGH = {Signal.DECODE_GAP: LIMIT}
"""Largest value of the signals whose range does not end at 1."""
MOST_SLICES = 0.5
"""Largest share of the slices with traffic that a quarantine may take; beyond it is a rollback."""


def alpha_of(spec: RolloutSpec, guardrail: Guardrail) -> float:
    """Computes the alpha of a guardrail.

    Half of the failure guardrail's alpha belongs to the gateways, which trip by themselves on the
    same requests.
    """
    if guardrail.share is None:
        return spec.alpha  # it takes no traffic away, so it has an alpha of its own
    alpha = spec.guard_alpha * guardrail.share
    is_shared = guardrail.signal is Signal.FAILURE and guardrail.action in SAFETY
    return alpha / 2 if is_shared else alpha


def guard_spec(
    spec: RolloutSpec, signal: Signal, tolerances: Mapping[str, float], default: float, alpha: float
) -> GuardSpec:
    """Builds the statistical specification of a guardrail."""
    gates = spec.gates
    return GuardSpec(
        tolerances=dict(tolerances),
        default_tolerance=default,
        low=LOW.get(signal, 0.0),
        high=HIGH.get(signal, 1.0),
        alpha=alpha,
        horizon=(signal is Signal.FAILURE and gates.failure_requests) or gates.horizon,
        alpha_promotion=spec.promotion_alpha,
    )


def in_range(signal: Signal, value: float) -> float:
    """Cuts a value to its signal's range: a comparator of another version may cut it elsewhere."""
    return min(max(float(value), LOW.get(signal, 0.0)), HIGH.get(signal, 1.0))


class GuardrailMonitor:
    """Watches one guardrail over one run.

    Args:
        signal: The signal that it watches.
        action: The action that it takes when it trips.
        spec: Specification of its guards; has a tolerance for every known slice. A signal of pairs
            has a guard for each kind of pair, others have one.
        kinds: Kinds of pairs that are told apart.
    """

    def __init__(
        self, signal: Signal, action: Action, spec: GuardSpec, kinds: PairKinds = PAIRS
    ) -> None:
        self.signal = signal
        self.action = action
        self.spec = spec
        self.kinds: tuple[Kind, ...] = kinds if signal in QUALITY else REQUESTS
        self.guard = KindGuards(dict.fromkeys(self.kinds, spec))
        """Guards of all observations: proofs and intervals."""
        self.path = EvidencePath()
        self.count = 0
        self.tripped: Tripped | None = None
        """Latched. With the action `quarantine`: set only once a quarantine was not enough."""
        self.quarantined: dict[str, Tripped] = {}
        self._watch = self.guard
        self._seen: dict[str, None] = {}

    @property
    def evidence(self) -> float:
        """Evidence against the candidate, on the slices that are not quarantined."""
        return self._watch.evidence

    @property
    def boundary(self) -> float:
        """Evidence at which the guardrail acts."""
        return self._watch.boundary

    def proven(self, kind: Kind) -> tuple[str, ...]:
        """Lists the slices that are proven within tolerance in pairs of a kind.

        `AGGREGATE` is among them if all slices together are.
        """
        guard = self.guard.of(kind)
        found = [name for name in self.spec.tolerances if guard.slice(name).is_proven]
        return (*found, AGGREGATE) if guard.aggregate().is_proven else tuple(found)

    def observe(self, slice_name: str, value: float, kind: Kind = None) -> None:
        """Bets on one observation.

        Args:
            slice_name: Its slice.
            value: Its value.
            kind: The kind of the pair; None for a signal that is not of pairs.
        """
        self.guard.observe(slice_name, value, kind)
        if slice_name in self.quarantined:
            return
        if self._watch is not self.guard:
            self._watch.observe(slice_name, value, kind)
        self._count_observed(slice_name, 1)

    def set_tolerance(self, slice_name: str, tolerance: float, kind: Kind) -> None:
        """Sets the tolerance of a slice in pairs of a kind, before the first of them.

        Raises:
            KeyError: The slice is not known.
            ValueError: It has observations, or the tolerance is outside the range.
        """
        self.guard.set_tolerance(slice_name, tolerance, kind)
        if self._watch is not self.guard and slice_name not in self.quarantined:
            self._watch.set_tolerance(slice_name, tolerance, kind)

    def count_up(self, slice_name: str, zeros: int, ones: int) -> None:
        """Bets on many observations of a {0, 1} signal of requests at once."""
        self.guard.fold(sums_of_counts(self.guard.spec, slice_name, zeros, ones), None)
        if slice_name in self.quarantined:
            return
        if self._watch is not self.guard:
            self._watch.fold(sums_of_counts(self._watch.spec, slice_name, zeros, ones), None)
        self._count_observed(slice_name, zeros + ones)

    def _settle(self) -> None:
        # After each observation: the rest of a report must change neither evidence nor culprits.
        if not self._watch.is_tripped:
            return
        tripped = self._trip()
        self.path.end(self.count, tripped.evidence)
        culprits = [name for name in tripped.culprits if name not in self.quarantined]
        quarantined = len(self.quarantined) + len(culprits)
        is_too_many = quarantined > MOST_SLICES * len(self._seen)
        if self.action != "quarantine" or not culprits or is_too_many:
            self.tripped = tripped
            return
        self.quarantined |= dict.fromkeys(culprits, tripped)
        self._watch = self.guard.without(self.quarantined)

    def _count_observed(self, slice_name: str, count: int) -> None:
        self._seen.setdefault(slice_name)
        self.count += count
        if self.tripped is None:
            self.path.add(self.count, self._watch.evidence)
            self._settle()

    def _trip(self) -> Tripped:
        return Tripped(
            signal=self.signal.value,
            action=self.action,
            evidence=self._watch.evidence,
            boundary=self._watch.boundary,
            culprits=self._watch.culprits(),
            suspect=self._watch.suspect(),
            answered_by=self._suspect_kind(),
        )

    def _suspect_kind(self) -> str | None:
        kind = self._watch.suspect_kind()
        return None if kind is None or len(self.kinds) == 1 else kind.value
