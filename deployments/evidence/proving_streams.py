"""Streams by which a slice is proven: those of all quality signals that are asked for. Pure."""

from collections.abc import Mapping

from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor
from penumbra.deployments.evidence.kind_guards import PairKinds, kind_of
from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.spec import PROVED, QUALITY, RolloutSpec
from penumbra.monitoring.observations import AnsweredBy, Arm, RunReport, Signal
from penumbra.monitoring.stats.guard import StreamView


class ProvingStreams:
    """The streams of a run's slices, and which of them a proof asks for.

    Args:
        spec: The rollout's specification.
        monitors: The run's monitors by signal.
        kinds: Kinds of pairs that are told apart.
    """

    def __init__(
        self, spec: RolloutSpec, monitors: Mapping[Signal, GuardrailMonitor], kinds: PairKinds
    ) -> None:
        self._spec = spec
        self.monitors = {signal: each for signal, each in monitors.items() if signal in QUALITY}
        """Monitors of the quality signals."""
        self._scored: dict[AnsweredBy, set[str]] = {kind: set() for kind in kinds}
        """Kind of pair -> slices that had a pair whose tokens are known."""

    def note(self, report: RunReport) -> None:
        """Note where tokens are known."""
        for pair in report.pairs:
            if pair.arm is Arm.CANDIDATE and (pair.tokens or pair.displacement is not None):
                self._scored[kind_of(pair, self._spec.candidate, self._scored)].add(pair.slice)

    def of(self, name: str, kind: AnsweredBy) -> dict[Signal, StreamView]:
        """Return the streams of a slice in pairs of a kind, asked for or not.

        Args:
            name: The slice; `AGGREGATE`: all of them.
            kind: The kind of pair.
        """
        is_whole = name == AGGREGATE
        return {
            signal: each.guard.aggregate(kind) if is_whole else each.guard.slice(name, kind)
            for signal, each in self.monitors.items()
        }

    def is_asked(self, signal: Signal, name: str, kind: AnsweredBy, count: int) -> bool:
        """Tell whether a proof is asked for; it depends on no value that was observed.

        Displacement is not asked for where no tokens are known, and the decode gap not where few
        answers tell one.

        Args:
            signal: A quality signal.
            name: The slice; `AGGREGATE`: all of them.
            kind: The kind of pair.
            count: Observations of the stream.
        """
        if signal is Signal.DISPLACEMENT:
            scored = self._scored[kind]
            return name in scored or (name == AGGREGATE and bool(scored))
        return signal in PROVED or count >= self._spec.gates.slice_pairs

    def proof(self, name: str, kind: AnsweredBy) -> float:
        """Return the least proof by a signal that is asked for; 1 if none is.

        Where the slice is beyond tolerance in one signal, that signal's proof bounds the least.
        """
        asked = (
            stream.proof
            for signal, stream in self.of(name, kind).items()
            if self.is_asked(signal, name, kind, stream.count)
        )
        return min(asked, default=1.0)
