"""The course of one guardrail: its guard, its quarantines, the path it took. Pure.

After a quarantine the slices that are out of traffic are bet on no more, and a fresh guard watches
the rest: its promise holds anew for them. What slices have proven stays with the first guard.

Reading order: GuardrailMonitor.observe, GuardrailMonitor.count_up.
"""

from collections.abc import Mapping
from dataclasses import replace

from penumbra.deployments.evidence.evidence_path import EvidencePath
from penumbra.deployments.rollouts.findings import Tripped
from penumbra.deployments.rollouts.spec import SAFETY, Action, Guardrail, RolloutSpec
from penumbra.monitoring.observations import Signal
from penumbra.monitoring.stats.guard import Guard, GuardSpec, sums_of_counts

LOW = {Signal.HARM: -1.0}
"""Signals whose range does not begin at 0."""
MOST_SLICES = 0.5
"""A quarantine of more of the slices that have traffic than this is a rollback."""


def alpha_of(spec: RolloutSpec, guardrail: Guardrail) -> float:
    """The alpha of a guardrail.

    Half of failure's is the gateways', who trip by themselves on the same requests.
    """
    alpha = spec.alpha * (guardrail.share if guardrail.share is not None else 1.0)
    is_shared = guardrail.signal is Signal.FAILURE and guardrail.action in SAFETY
    return alpha / 2 if is_shared else alpha


def guard_spec(
    spec: RolloutSpec, signal: Signal, tolerances: Mapping[str, float], default: float, alpha: float
) -> GuardSpec:
    """The statistics' side of a guardrail."""
    return GuardSpec(
        tolerances=dict(tolerances),
        default_tolerance=default,
        low=LOW.get(signal, 0.0),
        high=1.0,
        alpha=alpha,
        horizon=spec.gates.horizon,
        alpha_promotion=spec.promotion_alpha,
    )


class GuardrailMonitor:
    """One guardrail over one run.

    Args:
        signal: What it watches.
        action: What it does.
        spec: Of its guards; every slice that it knows has a tolerance there.
    """

    def __init__(self, signal: Signal, action: Action, spec: GuardSpec) -> None:
        self.signal = signal
        self.action = action
        self.spec = spec
        self.guard = Guard(spec)
        """Has seen everything: proofs and intervals."""
        self.path = EvidencePath()
        self.count = 0
        self.tripped: Tripped | None = None
        """Latched; with `quarantine` only once naming slices was not enough."""
        self.quarantined: dict[str, Tripped] = {}
        self._watch = self.guard
        self._watch_spec = spec
        self._seen: dict[str, None] = {}

    @property
    def evidence(self) -> float:
        """Against the candidate, on the slices that are not quarantined."""
        return self._watch.evidence

    @property
    def boundary(self) -> float:
        """Where the guardrail acts."""
        return self._watch.boundary

    def observe(self, slice_name: str, value: float) -> None:
        """Bet on one observation."""
        self.guard.observe(slice_name, value)
        if slice_name in self.quarantined:
            return
        if self._watch is not self.guard:
            self._watch.observe(slice_name, value)
        self._observed(slice_name, 1)

    def count_up(self, slice_name: str, zeros: int, ones: int) -> None:
        """Bet on many observations of a {0, 1} signal at once."""
        self.guard.fold(sums_of_counts(self.spec, slice_name, zeros, ones))
        if slice_name in self.quarantined:
            return
        if self._watch is not self.guard:
            self._watch.fold(sums_of_counts(self._watch_spec, slice_name, zeros, ones))
        self._observed(slice_name, zeros + ones)

    def _settle(self) -> None:
        # At once: what the rest of a report says must change neither evidence nor culprits.
        if not self._watch.is_tripped:
            return
        tripped = self._found()
        self.path.end(self.count, tripped.evidence)
        named = [name for name in tripped.culprits if name not in self.quarantined]
        out = len(self.quarantined) + len(named)
        if self.action != "quarantine" or not named or out > MOST_SLICES * len(self._seen):
            self.tripped = tripped
            return
        self.quarantined |= dict.fromkeys(named, tripped)
        self._watch_spec = self._spec_of_rest()
        self._watch = Guard(self._watch_spec)

    def _spec_of_rest(self) -> GuardSpec:
        rest = {
            name: tolerance
            for name, tolerance in self.spec.tolerances.items()
            if name not in self.quarantined
        }
        return replace(self.spec, tolerances=rest)

    def _observed(self, slice_name: str, count: int) -> None:
        self._seen.setdefault(slice_name)
        self.count += count
        if self.tripped is None:
            self.path.add(self.count, self._watch.evidence)
            self._settle()

    def _found(self) -> Tripped:
        return Tripped(
            signal=self.signal.value,
            action=self.action,
            evidence=self._watch.evidence,
            boundary=self._watch.boundary,
            culprits=self._watch.culprits(),
            suspect=self._watch.suspect(),
        )
