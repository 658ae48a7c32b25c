"""Proofs of a run: of every slice by all quality signals, in pairs of each kind. Pure.

The proofs of one kind are one family (`penumbra.deployments.evidence.slice_proofs`). What the
baseline answered proves that a slice may be released, and what the candidate answered that it may
have most of the traffic: two claims, each with the whole alpha of promotion.
"""

from collections.abc import Iterable, Iterator, Mapping

from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor
from penumbra.deployments.evidence.kind_guards import PairKinds, kind_of
from penumbra.deployments.evidence.slice_proofs import SliceProofs
from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.spec import PROVED, QUALITY, RolloutSpec
from penumbra.monitoring.observations import AnsweredBy, Arm, RunReport, Signal
from penumbra.monitoring.stats.guard import StreamView


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
        self._monitors = monitors
        self._scored: dict[AnsweredBy, set[str]] = {kind: set() for kind in kinds}
        """Kind of pair -> slices that had a pair whose tokens are known."""
        self.of = {kind: SliceProofs(slices, spec.promotion_alpha, runs) for kind in kinds}
        """Kind of pair -> proofs of all slices."""

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
        """Slices that are proven where the candidate answered."""
        live = self.of.get(AnsweredBy.CANDIDATE)
        return () if live is None else live.proven

    @property
    def is_aggregate_proven(self) -> bool:
        """Whether all slices together are within tolerance where the baseline answered."""
        return self._is_whole_proven(AnsweredBy.BASELINE, least=0)

    @property
    def is_live_aggregate_proven(self) -> bool:
        """Whether all slices together are within tolerance where the candidate answered."""
        live = AnsweredBy.CANDIDATE
        return live in self.of and self._is_whole_proven(live, self._spec.gates.slice_pairs)

    def _is_whole_proven(self, kind: AnsweredBy, least: int) -> bool:
        streams = {each.signal: each.guard.aggregate(kind) for each in self._proving}
        asked = list(self._asked(streams, has_tokens=bool(self._scored[kind])))
        wanted = 1.0 / self.of[kind].alpha
        return all(each.proof >= wanted and each.count >= least for each in asked)

    @property
    def suspects(self) -> tuple[str, ...]:
        """Slices that the evidence of a quality signal makes suspicious; `AGGREGATE` if all are."""
        guards = [monitor.guard for monitor in self._proving]
        found = {name for guard in guards for name in guard.suspicious()}
        names = tuple(name for name in self._slices if name in found)
        is_whole = any(
            guard.of(kind).aggregate().is_suspicious for guard in guards for kind in guard.kinds
        )
        return (*names, AGGREGATE) if is_whole else names

    def note(
        self,
        report: RunReport,
        fingerprints: Mapping[str, str],
        pairs: Mapping[AnsweredBy, Mapping[str, int]],
    ) -> None:
        """Take in the proofs of the slices that a report tells of, after it was bet on.

        Args:
            report: The report.
            fingerprints: Digests of the builds that are compared.
            pairs: Kind of pair -> slice -> number of pairs.
        """
        candidate = self._spec.candidate
        for pair in report.pairs:
            if pair.arm is Arm.CANDIDATE and (pair.tokens or pair.displacement is not None):
                self._scored[kind_of(pair, candidate, self.of)].add(pair.slice)
        for kind, proofs in self.of.items():
            proofs.identify(fingerprints)
            told = {
                pair.slice for pair in report.pairs if kind_of(pair, candidate, self.of) is kind
            }
            fresh = self._fresh(told & set(self._slices), kind, pairs[kind])
            proofs.note(fresh)

    def _fresh(
        self, names: Iterable[str], kind: AnsweredBy, pairs: Mapping[str, int]
    ) -> dict[str, float]:
        wanted = self._spec.gates.slice_pairs
        found = {name: self._proof(name, kind) for name in names}
        return {
            name: proof if pairs.get(name, 0) >= wanted else min(1.0, proof)
            for name, proof in found.items()
        }

    def _proof(self, slice_name: str, kind: AnsweredBy) -> float:
        """The least proof of a slice by a quality signal.

        Where the slice is beyond tolerance in one signal, that signal's proof bounds the least.
        """
        streams = {each.signal: each.guard.slice(slice_name, kind) for each in self._proving}
        asked = self._asked(streams, has_tokens=slice_name in self._scored[kind])
        return min((stream.proof for stream in asked), default=1.0)

    def _asked(
        self, streams: Mapping[Signal, StreamView], *, has_tokens: bool
    ) -> Iterator[StreamView]:
        """The streams whose proof is needed, which depends on no value that was observed.

        Displacement is not asked for where no tokens are known, and the decode gap not where few
        answers tell one.
        """
        for signal, stream in streams.items():
            if signal is Signal.DISPLACEMENT:
                is_asked = has_tokens
            else:
                is_asked = signal in PROVED or stream.count >= self._spec.gates.slice_pairs
            if is_asked:
                yield stream

    @property
    def _proving(self) -> list[GuardrailMonitor]:
        return [monitor for signal, monitor in self._monitors.items() if signal in QUALITY]
