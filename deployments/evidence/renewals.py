"""Renewals: proofs that are made anew because the workload has left what they were made on. Pure.

A proof that went stale begins again at 1, with the pairs after that; nothing of before counts. Each
such validation counts like an earlier run of the same builds, so that all proofs of two builds
share `promotion_alpha`, on whatever workload (docs/adr/0017, 0019).

Reading order: Renewals.begin, Renewals.note.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penumbra.deployments.evidence.kind_guards import PairKinds
from penumbra.deployments.evidence.proving_streams import ProvingStreams
from penumbra.deployments.evidence.slice_proofs import SliceProofs
from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.monitoring.observations import AnsweredBy, Signal
from penumbra.monitoring.stats.stream import StreamView
from penumbra.monitoring.stats.wealth import proof_since

PairsBy = Mapping[AnsweredBy, Mapping[str, int]]
"""Kind of pair -> slice -> number of pairs."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the streams of a slice stood in pairs of one kind when it went stale."""

    pairs: int
    streams: Mapping[Signal, StreamView]


@dataclass(frozen=True, slots=True)
class _Validation:
    """Slices that went stale at once, and their new proofs."""

    of: Mapping[AnsweredBy, SliceProofs]
    marks: Mapping[tuple[str, AnsweredBy], _Mark] = field(default_factory=dict)


class Renewals:
    """The proofs of a run that went stale, and what renews them.

    Args:
        spec: The rollout's specification.
        streams: The streams that proofs are made of.
        runs: Builds, by `builds_key` -> earlier runs of them that could prove a slice.
        kinds: Kinds of pairs that are told apart.
    """

    def __init__(
        self,
        spec: RolloutSpec,
        streams: ProvingStreams,
        runs: Mapping[str, int] | None,
        kinds: PairKinds,
    ) -> None:
        self._spec = spec
        self._streams = streams
        self._runs = runs
        self._kinds = kinds
        self._latest: dict[str, _Validation] = {}
        self.count = 0
        """Validations so far."""
        self.stale: dict[str, str] = {}
        """Slice, or `AGGREGATE` -> how its workload has left the profile, until it is proven again.
        """

    def proofs_of(self, name: str, kind: AnsweredBy) -> SliceProofs | None:
        """Return the proofs among which a slice was begun anew last; None if it never was."""
        validation = self._latest.get(name)
        return None if validation is None else validation.of[kind]

    def proven(self, kind: AnsweredBy) -> frozenset[str]:
        """Name those that went stale and were proven again in pairs of this kind."""
        return frozenset(name for name in self._latest if self._is_proven(name, kind))

    def unproven(self, kind: AnsweredBy) -> frozenset[str]:
        """Name those that went stale and were not."""
        return frozenset(self._latest) - self.proven(kind)

    def begin(self, left: Mapping[str, str], pairs: PairsBy) -> None:
        """Begin new proofs of slices whose workload has left their profile.

        Args:
            left: Slice, or `AGGREGATE` -> how.
            pairs: Pairs so far.
        """
        self.count += 1
        self.stale |= left
        alpha, runs, number = self._spec.promotion_alpha, self._runs, self.count
        validation = _Validation(
            {kind: SliceProofs(left, alpha, runs, number) for kind in self._kinds},
            {
                (name, kind): _Mark(_count(pairs[kind], name), self._streams.of(name, kind))
                for name in left
                for kind in self._kinds
            },
        )
        self._latest |= dict.fromkeys(left, validation)

    def note(
        self, names: Iterable[str], fingerprints: Mapping[str, str], pairs: PairsBy
    ) -> tuple[str, ...]:
        """Take in the new proofs of some slices; returns those that are not stale any more.

        A slice is proven again by pairs of either kind, whichever come.

        Args:
            names: The slices; `AGGREGATE` for all.
            fingerprints: Digests of the builds that are compared.
            pairs: Pairs so far.
        """
        for name in names:
            validation = self._latest.get(name)
            if validation is None:
                continue
            for kind, proofs in validation.of.items():
                proofs.identify(fingerprints)
                proofs.note({name: self._proof(name, kind, validation, pairs[kind])})
        renewed = tuple(
            name for name in self.stale if any(self._is_proven(name, kind) for kind in self._kinds)
        )
        for name in renewed:
            del self.stale[name]
        return renewed

    def _is_proven(self, name: str, kind: AnsweredBy) -> bool:
        return name in self._latest[name].of[kind].proven

    def _proof(
        self, name: str, kind: AnsweredBy, validation: _Validation, pairs: Mapping[str, int]
    ) -> float:
        mark = validation.marks[name, kind]
        proofs = [
            proof_since(stream.proof_logs, mark.streams[signal].proof_logs)
            for signal, stream in self._streams.of(name, kind).items()
            if self._is_asked(signal, name, kind, stream.count - mark.streams[signal].count)
        ]
        proof = min(proofs, default=1.0)
        has_enough = _count(pairs, name) - mark.pairs >= self._spec.gates.slice_pairs
        return proof if has_enough else min(1.0, proof)

    def _is_asked(self, signal: Signal, name: str, kind: AnsweredBy, count: int) -> bool:
        return self._streams.is_asked(signal, name, kind, count)


def _count(pairs: Mapping[str, int], name: str) -> int:
    return sum(pairs.values()) if name == AGGREGATE else pairs.get(name, 0)
