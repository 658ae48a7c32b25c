"""Views of proofs, of the traffic that they were made on, and of effects since their onset."""

from penumbra.deployments.api.rollout_schemas import WorkloadView
from penumbra.deployments.api.signal_schemas import (
    EffectView,
    ProofView,
    SliceProofView,
)
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.monitoring.observations import AnsweredBy
from penumbra.monitoring.stats.guard import StreamView as Stream


def proof_view(evidence: RunEvidence) -> ProofView:
    """Makes the view of the proofs of all slices, where the baseline answered."""
    proofs = evidence.proofs.of[AnsweredBy.BASELINE]
    return ProofView(
        alpha=proofs.alpha,
        earlier_runs=proofs.earlier_runs,
        slices=[
            SliceProofView(
                slice=name,
                proof=proof,
                boundary=proofs.boundary(name),
                is_proven=name in proofs.proven,
            )
            for name, proof in proofs.now.items()
        ],
    )


def workload_views(evidence: RunEvidence) -> list[WorkloadView]:
    """Makes the views of all features of the workload that were told."""
    return [
        WorkloadView(
            slice=each.slice,
            feature=each.feature.value,
            pairs=each.pairs,
            distance=each.distance,
        )
        for each in evidence.proofs.workload.features()
    ]


def effect_view(name: str | None, stream: Stream) -> EffectView | None:
    """Makes the view of a stream's effect since its onset; None if it has no onset.

    Args:
        name: The slice; None: all slices together.
        stream: Its figures.
    """
    effect = stream.effect
    if effect is None:
        return None
    return EffectView(
        slice=name,
        pairs=stream.count,
        since_pairs=effect.count,
        mean=effect.mean,
        lower=effect.lower,
        upper=effect.upper,
        tolerance=stream.tolerance,
    )
