"""Proofs of a run: of every slice by all quality signals, in pairs of each kind. Pure.

The proofs of one kind are one family (`penumbra.deployments.evidence.slice_proofs`). What the
baseline answered proves that a slice may be released, and what the candidate answered that it may
have most of the traffic: two claims, each with the whole alpha of promotion. That all slices
together are within tolerance is a claim of its own beside each of them. A proof holds for the
workload that it was made on (`penumbra.deployments.evidence.workload`); once that is left, it is
stale until the slice is proven anew (`penumbra.deployments.evidence.renewals`).
"""

from collections.abc import Mapping

from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor
from penumbra.deployments.evidence.kind_guards import PairKinds, kind_of
from penumbra.deployments.evidence.proving_streams import ProvingStreams
from penumbra.deployments.evidence.renewals import PairsBy, Renewals
from penumbra.deployments.evidence.slice_proofs import SliceProofs
from penumbra.deployments.evidence.workload import Workload
from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.monitoring.observations import AnsweredBy, RunReport, Signal


class RunProofs:
    """The proofs of one run.

    Args:
        spec: The rollout's specification.
        slices: Every slice of the model.
        monitors: The run's monitors by signal.
        runs: Builds, by `builds_key` -> earlier runs of them that could prove a slice.
        kinds: Kinds of pairs that are told apart.
    """

    def __init__(
        self,
        spec: RolloutSpec,
        slices: tuple[str, ...],
        monitors: Mapping[Signal, GuardrailMonitor],
        runs: Mapping[str, int] | None,
        kinds: PairKinds,
    ) -> None:
        self._spec = spec
        self._slices = slices
        self._streams = ProvingStreams(spec, monitors, kinds)
        self.of = {kind: SliceProofs(slices, spec.promotion_alpha, runs) for kind in kinds}
        """Kind of pair -> proofs of all slices."""
        self.workload = Workload(slices, spec.gates)
        """The traffic that the proofs were made on."""
        self.renewals = Renewals(spec, self._streams, runs, kinds)
        """Proofs that went stale."""

    @property
    def alpha(self) -> float:
        """Probability that any slice beyond tolerance is called proven by pairs of one kind."""
        return self.of[AnsweredBy.BASELINE].alpha

    @property
    def earlier_runs(self) -> int:
        """Earlier runs of the same builds that could prove a slice."""
        return self.of[AnsweredBy.BASELINE].earlier_runs

    @property
    def proven_live(self) -> tuple[str, ...]:
        """Slices that are proven where the candidate answered, on the workload of now."""
        live = self.of.get(AnsweredBy.CANDIDATE)
        if live is None:
            return ()
        unproven = self.renewals.unproven(AnsweredBy.CANDIDATE)
        fresh = self.renewals.proven(AnsweredBy.CANDIDATE)
        return tuple(
            name
            for name in self._slices
            if name in fresh or (name in live.proven and name not in unproven)
        )

    @property
    def is_aggregate_proven(self) -> bool:
        """Whether all slices together are within tolerance where the baseline answered."""
        return self._streams.proof(AGGREGATE, AnsweredBy.BASELINE) >= 1.0 / self.alpha

    @property
    def is_live_aggregate_proven(self) -> bool:
        """Whether all slices together are within tolerance where the candidate answered.

        Not once a slice went stale, before it is proven anew by pairs in which it answered.
        """
        live = self.of.get(AnsweredBy.CANDIDATE)
        if live is None or self.renewals.unproven(AnsweredBy.CANDIDATE):
            return False
        streams = self._streams.of(AGGREGATE, AnsweredBy.CANDIDATE)
        least = self._spec.gates.slice_pairs
        has_enough = all(
            stream.count >= least
            for signal, stream in streams.items()
            if self._streams.is_asked(signal, AGGREGATE, AnsweredBy.CANDIDATE, stream.count)
        )
        proof = self._streams.proof(AGGREGATE, AnsweredBy.CANDIDATE)
        return has_enough and proof >= 1.0 / live.alpha

    @property
    def suspects(self) -> tuple[str, ...]:
        """Slices that the evidence of a quality signal makes suspicious; `AGGREGATE` if all are."""
        guards = [monitor.guard for monitor in self._streams.monitors.values()]
        found = {name for guard in guards for name in guard.suspicious()}
        names = tuple(name for name in self._slices if name in found)
        is_whole = any(
            guard.of(kind).aggregate().is_suspicious for guard in guards for kind in guard.kinds
        )
        return (*names, AGGREGATE) if is_whole else names

    def note(self, report: RunReport, fingerprints: Mapping[str, str], pairs: PairsBy) -> None:
        """Take in the proofs of the slices that a report tells of, after it was bet on.

        Args:
            report: The report.
            fingerprints: Digests of the builds that are compared.
            pairs: Kind of pair -> slice -> number of pairs.
        """
        self._streams.note(report)
        candidate = self._spec.candidate
        all_told: set[str] = set()
        for kind, proofs in self.of.items():
            proofs.identify(fingerprints)
            told = {
                pair.slice for pair in report.pairs if kind_of(pair, candidate, self.of) is kind
            }
            told &= set(self._slices)
            all_told |= told
            proofs.note({name: self._proof(name, kind, pairs[kind]) for name in told})
        if all_told:
            self._follow_workload(all_told, fingerprints, pairs)

    def _follow_workload(
        self, told: set[str], fingerprints: Mapping[str, str], pairs: PairsBy
    ) -> None:
        """Take profiles of what is proven, and take up what has left its profile."""
        renewed = self.renewals.note({*told, AGGREGATE}, fingerprints, pairs)
        proven = [*self.of[AnsweredBy.BASELINE].proven]
        if AGGREGATE not in self.workload.proven and self.is_aggregate_proven:
            proven.append(AGGREGATE)
        for name in (*renewed, *proven):
            if name not in self.renewals.stale:
                self.workload.fix(name)
        left = self.workload.left()
        if left:
            self.renewals.begin(left, pairs)
            for name in left:
                self.workload.forget(name)

    def _proof(self, name: str, kind: AnsweredBy, pairs: Mapping[str, int]) -> float:
        proof = self._streams.proof(name, kind)
        return proof if pairs.get(name, 0) >= self._spec.gates.slice_pairs else min(1.0, proof)
